// Lanes share their work through workgroup memory: what GPUs want.
//
// LANES_R x LANES_C lanes; a lane holds 4 queries by 4 or 8 (FAR) keys of the scores, and the same 4 queries by 2 or 4 (WIDE)
// groups of 4 columns of the output. Interleaving by LANES_R and LANES_C, and strips of odd length, keep the workgroup memory
// free of bank conflicts.

const LANES_PER_ROW = LANES_C;
const UNIT = 1.0;              // a weight of 1 in l

// One workgroup array, cut by the constants *_AT: q and k chunks while scores are computed, then p and v over them.
//
// What a lane reads in CHUNK steps that follow each other lies in one strip: the CHUNK groups of a query or of a key, the weights
// of 4 queries for CHUNK keys, a group of columns of CHUNK values. So a step's places are those of the first and a constant. They are
// worked out, and clamped by wgpu, once for CHUNK steps, and those are spelt out: in a loop each step would pay for both, and for
// the loop's own clock. That was a third of all instructions.
var<workgroup> arena: array<array<vec4<f32>, STRIP>, ARENA / STRIP>;

var<private> o: Sums;

// What a lane has of its 4 queries by keys c + LANES_C t, t = 0..3, and where FAR by those at t = 4..7.
struct Products { near: Scores, far: Scores }

// The last rows come first: under a causal mask they take longest, and what is left for the end should be short.
fn row_tile_at(place: u32) -> u32 { return params.kernel.row_tiles - 1u - place; }

fn begin(at: Head, lane: Lane) {
    forget_strange_keys(lane);
    if (Q_RESIDENT) {
        for (var chunk = 0u; chunk < HEAD_GROUPS; chunk += CHUNK) { stage_q(at, lane, chunk, Q_AT + chunk / CHUNK * ROWS); }
    }
}

// The lane that the far keys would be those of, if there were so many.
fn beyond(lane: Lane) -> Lane { return Lane(lane.index, lane.r, lane.c + 4u * LANES_C); }

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    let products = dot_products(at, lane, tile);
    let s = scores(at, lane, tile, products.near);
    var highest = maxima(s);
    var s_far: Scores;
    if (FAR) {
        s_far = scores(at, beyond(lane), tile, products.far);
        highest = max(highest, maxima(s_far));
    }
    let rescale = raise_maximum(max(m, max_over_lanes(lane, highest)));
    // Every lane is past the scores (max_over_lanes): p and v may lie over q and k.
    let p = weights(tile, s);
    var new_l = sums(p);
    store_weights(lane, met(at, lane, tile, p));
    var pairs = vec2(0u);
    if (WEIGHTS_MAY_DROP) { pairs.x = attended_pairs(p); }
    if (FAR) {
        let p_far = weights(tile, s_far);
        new_l += sums(p_far);
        store_weights(beyond(lane), met(at, beyond(lane), tile, p_far));
        if (WEIGHTS_MAY_DROP) { pairs.y = attended_pairs(p_far); }
    }
    l = fma(l, rescale, new_l);

    // A sum of the tile by itself, then added: a chain of additions as long as the row would lose digits.
    var x: Sums;
    for (var key = 0u; key < KEYS; key += V_KEYS) {
        if (key > 0u || REDUCE_UNDER_V) { workgroupBarrier(); }
        stage_v(at, lane, tile, key);
        workgroupBarrier();
        for (var j = 0u; j < V_KEYS; j += CHUNK) {
            x = weighed_strip(x, strip_of_weights(lane, key + j), V_AT + j / CHUNK * V_GROUPS + lane.c);
        }
    }
    o.near = rescaled(o.near, rescale, x.near);
    if (WIDE) { o.wide = rescaled(o.wide, rescale, x.wide); }
    if (is_masked(tile) || SCORES_MAY_DROP) {
        note_strange_values(lane, pairs.x);
        if (FAR) { note_strange_values(beyond(lane), pairs.y); }
    }
}

// q . k of the lane's queries and keys, a chunk of the head dimension at a time.
fn dot_products(at: Head, lane: Lane, tile: KeyTile) -> Products {
    var s: Products;
    for (var chunk = 0u; chunk < HEAD_GROUPS; chunk += CHUNK) {
        workgroupBarrier(); // the last tile's v, or the last chunk, is read to its end
        forget_strange_keys(lane);
        if (!Q_RESIDENT) { stage_q(at, lane, chunk, Q_AT); }
        stage_k(at, lane, tile.first, chunk);
        workgroupBarrier();
        let q = vec4(Q_AT + select(0u, chunk / CHUNK * ROWS, Q_RESIDENT) + lane.r) + LANES_R * vec4(0u, 1u, 2u, 3u);
        let k = vec4(K_AT + lane.c) + LANES_C * vec4(0u, 1u, 2u, 3u);
        s = with_group(s, q, k, 0u);
        if (is_group(chunk, 1u)) { s = with_group(s, q, k, 1u); }
        if (is_group(chunk, 2u)) { s = with_group(s, q, k, 2u); }
        if (is_group(chunk, 3u)) { s = with_group(s, q, k, 3u); }
        if (is_group(chunk, 4u)) { s = with_group(s, q, k, 4u); }
        if (is_group(chunk, 5u)) { s = with_group(s, q, k, 5u); }
        if (is_group(chunk, 6u)) { s = with_group(s, q, k, 6u); }
        if (is_group(chunk, 7u)) { s = with_group(s, q, k, 7u); }
    }
    return s;
}

// Whether a chunk has a group n: known to the compiler, where chunks come out even.
fn is_group(chunk: u32, n: u32) -> bool { return n < CHUNK && (HEAD_GROUPS % CHUNK == 0u || chunk + n < HEAD_GROUPS); }

fn with_group(s: Products, q: vec4<u32>, k: vec4<u32>, n: u32) -> Products {
    let q0 = arena[q.x][n];
    let q1 = arena[q.y][n];
    let q2 = arena[q.z][n];
    let q3 = arena[q.w][n];
    var sum = s;
    sum.near = products_with(s.near, q0, q1, q2, q3, k, n);
    if (FAR) { sum.far = products_with(s.far, q0, q1, q2, q3, k + 4u * LANES_C, n); }
    return sum;
}

fn products_with(s: Scores, q0: vec4<f32>, q1: vec4<f32>, q2: vec4<f32>, q3: vec4<f32>, k: vec4<u32>, n: u32) -> Scores {
    let k0 = arena[k.x][n];
    let k1 = arena[k.y][n];
    let k2 = arena[k.z][n];
    let k3 = arena[k.w][n];
    return Scores(dots(q0, k0, k1, k2, k3, s.a), dots(q1, k0, k1, k2, k3, s.b),
                  dots(q2, k0, k1, k2, k3, s.c), dots(q3, k0, k1, k2, k3, s.d));
}

fn store_weights(lane: Lane, w: Scores) {
    store_weight(lane, lane.c, vec4(w.a.x, w.b.x, w.c.x, w.d.x));
    store_weight(lane, lane.c + LANES_C, vec4(w.a.y, w.b.y, w.c.y, w.d.y));
    store_weight(lane, lane.c + 2u * LANES_C, vec4(w.a.z, w.b.z, w.c.z, w.d.z));
    store_weight(lane, lane.c + 3u * LANES_C, vec4(w.a.w, w.b.w, w.c.w, w.d.w));
}

// --- values that are not finite: see lib/strange_values.wgsl ---

// Notes the lane's queries that attend such values: those with another weight than 0, which they store until the next tile. Where weights
// that are attended may be dropped, `pairs` tells.
fn note_strange_values(lane: Lane, pairs: u32) {
    let strange = vec4(is_strange(lane.c), is_strange(lane.c + LANES_C),
                       is_strange(lane.c + 2u * LANES_C), is_strange(lane.c + 3u * LANES_C));
    if (!any(strange)) { return; }
    if (WEIGHTS_MAY_DROP) {
        let keys = bits_of(strange);
        strange_rows = strange_rows | (((vec4(pairs) >> vec4(0u, 4u, 8u, 12u)) & vec4(keys)) != vec4(0u));
    } else {
        strange_rows = strange_rows
            | (vec4(strange.x) & is_attended(lane, lane.c)) | (vec4(strange.y) & is_attended(lane, lane.c + LANES_C))
            | (vec4(strange.z) & is_attended(lane, lane.c + 2u * LANES_C)) | (vec4(strange.w) & is_attended(lane, lane.c + 3u * LANES_C));
    }
}

fn is_attended(lane: Lane, key: u32) -> vec4<bool> { return arena[strip_of_weights(lane, key)][key % CHUNK] != vec4(0.0); }

// Which of 4 queries attend which of 4 keys, 4 bits per query.
fn attended_pairs(p: Scores) -> u32 {
    let keys = vec4(bits_of(p.a != vec4(0.0)), bits_of(p.b != vec4(0.0)), bits_of(p.c != vec4(0.0)), bits_of(p.d != vec4(0.0)))
        << vec4(0u, 4u, 8u, 12u);
    return (keys.x | keys.y) | (keys.z | keys.w);
}

fn bits_of(x: vec4<bool>) -> u32 {
    let bits = select(vec4(0u), vec4(1u, 2u, 4u, 8u), x);
    return (bits.x | bits.y) | (bits.z | bits.w);
}

fn write_rows(at: Head, lane: Lane) {
    strange_rows = strange_rows | strange_columns(o.near);
    if (WIDE) { strange_rows = strange_rows | strange_columns(o.wide); }
    l = sum_over_lanes(lane, marked(l));
    let row = at.first_row + lane.r;
    let a = row_end(at, row, m.x, l.x);
    let b = row_end(at, row + LANES_R, m.y, l.y);
    let c = row_end(at, row + 2u * LANES_R, m.z, l.z);
    let d = row_end(at, row + 3u * LANES_R, m.w, l.w);
    write_row(lane, a, o.near.a0, o.near.a1, o.wide.a0, o.wide.a1);
    write_row(lane, b, o.near.b0, o.near.b1, o.wide.b0, o.wide.b1);
    write_row(lane, c, o.near.c0, o.near.c1, o.wide.c0, o.wide.c1);
    write_row(lane, d, o.near.d0, o.near.d1, o.wide.d0, o.wide.d1);
    if (ACCUMULATE) { storageBarrier(); } // every lane of a row has read the earlier parts' (m, l)
    if (lane.c == 0u) {
        write_stats(a);
        write_stats(b);
        write_stats(c);
        write_stats(d);
    }
}

// Rows with columns that are not finite: they attended such a value.
fn strange_columns(o: Columns) -> vec4<bool> {
    return vec4(any(not_finite(o.a0) | not_finite(o.a1)), any(not_finite(o.b0) | not_finite(o.b1)),
                any(not_finite(o.c0) | not_finite(o.c1)), any(not_finite(o.d0) | not_finite(o.d1)));
}

fn write_row(lane: Lane, end: RowEnd, o0: vec4<f32>, o1: vec4<f32>, o2: vec4<f32>, o3: vec4<f32>) {
    write_group(end, lane.c, o0);
    write_group(end, lane.c + LANES_C, o1);
    if (WIDE) {
        write_group(end, lane.c + 2u * LANES_C, o2);
        write_group(end, lane.c + 3u * LANES_C, o3);
    }
}

// --- staging: workgroup memory filled by all lanes together ---

fn stage_q(at: Head, lane: Lane, chunk: u32, to: u32) {
    for (var e = lane.index; e < ROWS * CHUNK; e += LANES) {
        let row = e / CHUNK;
        let g = e % CHUNK;
        if (is_group(chunk, g)) { arena[to + row][g] = scaled_query(at, row, chunk + g); }
    }
}

fn stage_k(at: Head, lane: Lane, first: u32, chunk: u32) {
    for (var e = lane.index; e < KEYS * CHUNK; e += LANES) {
        let key = e / CHUNK;
        let g = e % CHUNK;
        if (is_group(chunk, g)) {
            arena[K_AT + key][g] = load_k(key_offset(at, first + key) + 4u * (chunk + g), HEAD_DIM - 4u * (chunk + g));
        }
    }
}

// V_KEYS keys of the tile from `key` on.
fn stage_v(at: Head, lane: Lane, tile: KeyTile, key: u32) {
    for (var e = lane.index; e < V_KEYS * V_GROUPS; e += LANES) {
        let g = e % V_GROUPS;
        let j = e / V_GROUPS;
        var x = vec4(0.0);
        if (g < VALUE_GROUPS) {
            x = load_v(value_offset(at, tile.first + key + j) + 4u * g, VALUE_DIM - 4u * g);
            // Where all rows attend all keys, it shows in o.
            if (is_masked(tile) || SCORES_MAY_DROP) { x = finite_or_noted(key + j, x); }
        }
        arena[V_AT + j / CHUNK * V_GROUPS + g][j % CHUNK] = x;
    }
}

// --- small algebra ---

fn rescaled(o: Columns, f: vec4<f32>, x: Columns) -> Columns {
    return Columns(fma(o.a0, vec4(f.x), x.a0), fma(o.a1, vec4(f.x), x.a1), fma(o.b0, vec4(f.y), x.b0), fma(o.b1, vec4(f.y), x.b1),
                   fma(o.c0, vec4(f.z), x.c0), fma(o.c1, vec4(f.z), x.c1), fma(o.d0, vec4(f.w), x.d0), fma(o.d1, vec4(f.w), x.d1));
}

// --- reductions over the LANES_C lanes that share 4 queries, always in the same order ---

// The strip of the lanes of a row that lane c of it is in, as number c % CHUNK.
fn strip_of_lane(lane: Lane, c: u32) -> u32 { return REDUCE_AT + c / CHUNK * LANES_R + lane.r; }

fn max_over_lanes(lane: Lane, x: vec4<f32>) -> vec4<f32> {
    arena[strip_of_lane(lane, lane.c)][lane.c % CHUNK] = x;
    workgroupBarrier();
    var result = arena[strip_of_lane(lane, 0u)][0];
    for (var c = 1u; c < LANES_C; c++) { result = max(result, arena[strip_of_lane(lane, c)][c % CHUNK]); }
    return result;
}

fn sum_over_lanes(lane: Lane, x: vec4<f32>) -> vec4<f32> {
    workgroupBarrier(); // the last max_over_lanes is read to its end
    arena[strip_of_lane(lane, lane.c)][lane.c % CHUNK] = x;
    workgroupBarrier();
    var result = arena[strip_of_lane(lane, 0u)][0];
    for (var c = 1u; c < LANES_C; c++) { result += arena[strip_of_lane(lane, c)][c % CHUNK]; }
    return result;
}

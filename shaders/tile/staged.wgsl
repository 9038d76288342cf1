// Lanes share their work through workgroup memory: what GPUs want.
//
// A lane holds 4 or 8 (TALL) queries by 4 or 8 (FAR) keys of the scores, and the same queries by 1 (NARROW), 2 or 4 (WIDE) groups of 4
// columns of the output. What is loaded for a product serves all that a lane holds: 4 queries by 4 keys are 8 vec4s for 64 fma, 8 by 8 are
// 16 for 256. LANES_R is how many fours of queries a workgroup has, LANES_C how many lanes share each. Interleaving by LANES_R and
// LANES_C, and strips of odd length, keep the workgroup memory free of bank conflicts.
//
// All but this file knows of 4 queries by 4 keys at a time. Where FAR, the far keys are those of a lane `beyond`; where TALL, the lower
// queries are those of a lane `below`, and what is kept per query changes places by `turn`.

const LANES_PER_ROW = LANES_C;
const UNIT = 1.0;              // a weight of 1 in l
const WEIGHTS_TELL = false;    // who attends what: `pairs` do

// One workgroup array, cut by the constants *_AT: q and k chunks while scores are computed, then p and v over them.
//
// What a lane reads in CHUNK steps that follow each other lies in one strip: the CHUNK groups of a query or of a key, the weights
// of 4 queries for CHUNK keys, a group of columns of CHUNK values. So a step's places are those of the first and a constant. They are
// worked out, and clamped by wgpu, once for CHUNK steps, and those are spelt out: in a loop each step would pay for both, and for
// the loop's own clock. That was a third of all instructions.
var<workgroup> arena: array<array<vec4<f32>, STRIP>, ARENA / STRIP>;

var<private> o: Sums;

// What is kept of the lane's other 4 queries, where TALL.
struct Rows4 { m: vec4<f32>, l: vec4<f32>, lowest: vec4<f32>, strange: vec4<bool> }
var<private> others: Rows4;

// What a lane has of 4 queries by keys c + LANES_C t, t = 0..3, and where FAR by those at t = 4..7. Of scores also which pairs of both are
// attended, as `pairs_seen`.
struct Reach { near: Scores, far: Scores, pairs: vec2<u32> }

// Of its queries r + LANES_R k, k = 0..3, and where TALL of those LANES_R / 2 below.
struct Products { upper: Reach, lower: Reach }

// 4 elements of 4 queries or keys.
struct Fours { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

// The factor of what was summed before, and the pairs that are attended: of near and of far keys.
struct Weighed { rescale: vec4<f32>, pairs: vec2<u32> }

// The last rows come first: under a causal mask they take longest, and what is left for the end should be short.
fn row_tile_at(place: u32) -> u32 { return params.kernel.row_tiles - 1u - place; }

fn begin(at: Head, lane: Lane) {
    if (TALL) {
        turn();
        begin_rows(at, below(lane));
        turn();
    }
    forget_strange_keys(lane);
    if (Q_RESIDENT) {
        for (var chunk = 0u; chunk < HEAD_GROUPS; chunk += CHUNK) { stage_q(at, lane, chunk, Q_AT + chunk / CHUNK * ROWS); }
    }
}

// The lane that the far keys would be those of, if there were so many.
fn beyond(lane: Lane) -> Lane { return Lane(lane.index, lane.r, lane.c + 4u * LANES_C); }

// The lane that the lower queries would be those of.
fn below(lane: Lane) -> Lane { return Lane(lane.index, lane.r + LANES_R / 2u, lane.c); }

// The lane's other 4 queries take the place of those at hand. It costs nothing: registers change their names.
fn turn() {
    let own = Rows4(m, l, lowest, strange_rows);
    m = others.m;
    l = others.l;
    lowest = others.lowest;
    strange_rows = others.strange;
    others = own;
    turn_segments();
    turn_dropout();
}

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    let products = dot_products(at, lane, tile);
    let upper = compared(at, lane, tile, products.upper);
    var lower: Reach;
    if (TALL) {
        turn();
        lower = compared(at, below(lane), tile, products.lower);
        turn();
    }
    workgroupBarrier();
    // Every lane is past the scores: p and v may lie over q and k.
    let own = weighed(at, lane, tile, upper);
    var others_own: Weighed;
    if (TALL) {
        turn();
        others_own = weighed(at, below(lane), tile, lower);
        turn();
    }
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
    o.near = rescaled(o.near, own.rescale, x.near);
    if (WIDE) { o.more = rescaled(o.more, own.rescale, x.more); }
    if (TALL) { o.more = rescaled(o.more, others_own.rescale, x.more); }
    if (is_masked(tile) || SCORES_MAY_DROP) {
        note_strange_keys(lane, own.pairs);
        if (TALL) {
            turn();
            note_strange_keys(below(lane), others_own.pairs);
            turn();
        }
    }
}

// The scores of 4 queries. Their maxima are left where the other lanes of the row find them.
fn compared(at: Head, lane: Lane, tile: KeyTile, products: Reach) -> Reach {
    var s: Reach;
    s.near = scores(at, lane, tile, products.near);
    s.pairs.x = pairs_seen;
    var highest = maxima(s.near);
    if (FAR) {
        s.far = scores(at, beyond(lane), tile, products.far);
        s.pairs.y = pairs_seen;
        highest = max(highest, maxima(s.far));
    }
    arena[strip_of_lane(lane, lane.c)][lane.c % CHUNK] = highest;
    return s;
}

// Takes the maximum of all lanes of 4 queries, and leaves their weights.
fn weighed(at: Head, lane: Lane, tile: KeyTile, s: Reach) -> Weighed {
    let rescale = raise_maximum(max(m, max_over_lanes(lane)));
    let p = weights(tile, s.near);
    var new_l = sums(p);
    store_weights(lane, met(at, lane, tile, p));
    if (FAR) {
        let p_far = weights(tile, s.far);
        new_l += sums(p_far);
        store_weights(beyond(lane), met(at, beyond(lane), tile, p_far));
    }
    l = fma(l, rescale, new_l);
    return Weighed(rescale, s.pairs);
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
    let upper = fours(q, n);
    var lower: Fours;
    if (TALL) { lower = fours(q + LANES_R / 2u, n); }
    let near = fours(k, n);
    var sum = s;
    sum.upper.near = products_with(s.upper.near, upper, near);
    if (TALL) { sum.lower.near = products_with(s.lower.near, lower, near); }
    if (FAR) {
        let far = fours(k + 4u * LANES_C, n);
        sum.upper.far = products_with(s.upper.far, upper, far);
        if (TALL) { sum.lower.far = products_with(s.lower.far, lower, far); }
    }
    return sum;
}

fn fours(at: vec4<u32>, n: u32) -> Fours { return Fours(arena[at.x][n], arena[at.y][n], arena[at.z][n], arena[at.w][n]); }

fn products_with(s: Scores, q: Fours, k: Fours) -> Scores {
    return Scores(dots(q.a, k.a, k.b, k.c, k.d, s.a), dots(q.b, k.a, k.b, k.c, k.d, s.b),
                  dots(q.c, k.a, k.b, k.c, k.d, s.c), dots(q.d, k.a, k.b, k.c, k.d, s.d));
}

fn store_weights(lane: Lane, w: Scores) {
    store_weight(lane, lane.c, vec4(w.a.x, w.b.x, w.c.x, w.d.x));
    store_weight(lane, lane.c + LANES_C, vec4(w.a.y, w.b.y, w.c.y, w.d.y));
    store_weight(lane, lane.c + 2u * LANES_C, vec4(w.a.z, w.b.z, w.c.z, w.d.z));
    store_weight(lane, lane.c + 3u * LANES_C, vec4(w.a.w, w.b.w, w.c.w, w.d.w));
}

// --- values that are not finite: see lib/strange_values.wgsl ---

fn note_strange_keys(lane: Lane, pairs: vec2<u32>) {
    note_strange_values(lane, pairs.x);
    if (FAR) { note_strange_values(beyond(lane), pairs.y); }
}

// Notes the lane's queries that attend such values.
fn note_strange_values(lane: Lane, pairs: u32) {
    let strange = vec4(is_strange(lane.c), is_strange(lane.c + LANES_C),
                       is_strange(lane.c + 2u * LANES_C), is_strange(lane.c + 3u * LANES_C));
    if (!any(strange)) { return; }
    strange_rows = strange_rows | (((vec4(pairs) >> vec4(0u, 1u, 2u, 3u)) & vec4(kept_bits(strange))) != vec4(0u));
}

fn write_rows(at: Head, lane: Lane) {
    var strange = strange_columns(o.near);
    if (WIDE) { strange = strange | strange_columns(o.more); }
    write_fours(at, lane, strange, o.near, o.more);
    if (TALL) {
        turn();
        write_fours(at, below(lane), strange_columns(o.more), o.more, o.more);
        turn();
    }
}

// 4 rows of output: group lane.c, but where NARROW lane.c + LANES_C, and where WIDE two more.
fn write_fours(at: Head, lane: Lane, strange: vec4<bool>, o: Columns, more: Columns) {
    strange_rows = strange_rows | strange;
    l = sum_over_lanes(lane, marked(l));
    let row = at.first_row + lane.r;
    let a = row_end(at, row, m.x, l.x);
    let b = row_end(at, row + LANES_R, m.y, l.y);
    let c = row_end(at, row + 2u * LANES_R, m.z, l.z);
    let d = row_end(at, row + 3u * LANES_R, m.w, l.w);
    write_row(lane, a, o.a0, o.a1, more.a0, more.a1);
    write_row(lane, b, o.b0, o.b1, more.b0, more.b1);
    write_row(lane, c, o.c0, o.c1, more.c0, more.c1);
    write_row(lane, d, o.d0, o.d1, more.d0, more.d1);
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
    if (NARROW) {
        return vec4(any(not_finite(o.a0)), any(not_finite(o.b0)), any(not_finite(o.c0)), any(not_finite(o.d0)));
    }
    return vec4(any(not_finite(o.a0) | not_finite(o.a1)), any(not_finite(o.b0) | not_finite(o.b1)),
                any(not_finite(o.c0) | not_finite(o.c1)), any(not_finite(o.d0) | not_finite(o.d1)));
}

fn write_row(lane: Lane, end: RowEnd, o0: vec4<f32>, o1: vec4<f32>, o2: vec4<f32>, o3: vec4<f32>) {
    write_group(end, lane.c, o0);
    if (!NARROW) { write_group(end, lane.c + LANES_C, o1); }
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

// Of what each left there.
fn max_over_lanes(lane: Lane) -> vec4<f32> {
    var result = arena[strip_of_lane(lane, 0u)][0];
    for (var c = 1u; c < LANES_C; c++) { result = max(result, arena[strip_of_lane(lane, c)][c % CHUNK]); }
    return result;
}

fn sum_over_lanes(lane: Lane, x: vec4<f32>) -> vec4<f32> {
    workgroupBarrier(); // the last maxima, and sums, are read to their end
    arena[strip_of_lane(lane, lane.c)][lane.c % CHUNK] = x;
    workgroupBarrier();
    var result = arena[strip_of_lane(lane, 0u)][0];
    for (var c = 1u; c < LANES_C; c++) { result += arena[strip_of_lane(lane, c)][c % CHUNK]; }
    return result;
}

// Lanes share their work through workgroup memory: what GPUs want.
//
// LANES_R x LANES_C lanes; a lane holds 4 queries by 4 keys of the scores, and the same 4 queries by 2 or 4 (WIDE) groups
// of 4 columns of the output. Interleaving by LANES_R and LANES_C, and odd row pitches, keep the workgroup memory free of
// bank conflicts.

const LANES_PER_ROW = LANES_C;
const UNIT = 1.0;              // a weight of 1 in l

// One workgroup array, cut by the constants *_AT: q and k chunks while scores are computed, then p and v over them.
var<workgroup> arena: array<vec4<f32>, ARENA>;

var<private> o: Columns;        // output columns lane_c and lane_c + LANES_C, in groups of 4
var<private> wide: Columns;     // columns lane_c + 2 LANES_C and lane_c + 3 LANES_C, where WIDE

// The last rows come first: under a causal mask they take longest, and what is left for the end should be short.
fn row_tile_at(place: u32) -> u32 { return params.kernel.row_tiles - 1u - place; }

fn begin(at: Head, lane: Lane) {
    forget_strange_keys(lane);
    if (Q_RESIDENT) { stage_q(at, lane, 0u, HEAD_GROUPS); }
}

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    let s = scores(at, lane, tile, dot_products(at, lane, tile));
    let rescale = raise_maximum(max(m, max_over_lanes(lane, maxima(s))));
    let p = weights(tile, s);
    l = fma(l, rescale, sums(p));
    let w = met(at, lane, tile, p);

    // Every lane is past the scores (max_over_lanes): p and v may lie over q and k.
    arena[P_AT + lane.c * P_PITCH + lane.r] = vec4(w.a.x, w.b.x, w.c.x, w.d.x);
    arena[P_AT + (lane.c + LANES_C) * P_PITCH + lane.r] = vec4(w.a.y, w.b.y, w.c.y, w.d.y);
    arena[P_AT + (lane.c + 2u * LANES_C) * P_PITCH + lane.r] = vec4(w.a.z, w.b.z, w.c.z, w.d.z);
    arena[P_AT + (lane.c + 3u * LANES_C) * P_PITCH + lane.r] = vec4(w.a.w, w.b.w, w.c.w, w.d.w);
    // A sum of the tile by itself, then added: a chain of additions as long as the row would lose digits.
    var x: Columns;
    var x_wide: Columns;
    for (var key = 0u; key < KEYS; key += V_KEYS) {
        if (key > 0u) { workgroupBarrier(); }
        stage_v(at, lane, tile, key);
        workgroupBarrier();
        for (var j = 0u; j < V_KEYS; j++) {
            let p_j = arena[P_AT + (key + j) * P_PITCH + lane.r];
            let v_j = V_AT + j * V_PITCH + lane.c;
            x = accumulated(x, p_j, arena[v_j], arena[v_j + LANES_C]);
            if (WIDE) { x_wide = accumulated(x_wide, p_j, arena[v_j + 2u * LANES_C], arena[v_j + 3u * LANES_C]); }
        }
    }
    o = rescaled(o, rescale, x);
    if (WIDE) { wide = rescaled(wide, rescale, x_wide); }
    if (is_masked(tile) || SCORES_MAY_DROP) { note_values(lane, tile, p); }
}

// q . k of the lane's 4 queries and 4 keys, a chunk of the head dimension at a time.
fn dot_products(at: Head, lane: Lane, tile: KeyTile) -> Scores {
    var s: Scores;
    for (var chunk = 0u; chunk < HEAD_GROUPS; chunk += CHUNK) {
        let groups = min(CHUNK, HEAD_GROUPS - chunk);
        workgroupBarrier(); // the last tile's v, or the last chunk, is read to its end
        forget_strange_keys(lane);
        if (!Q_RESIDENT) { stage_q(at, lane, chunk, groups); }
        stage_k(at, lane, tile.first, chunk, groups);
        workgroupBarrier();
        let q_at = Q_AT + lane.r * Q_PITCH + select(0u, chunk, Q_RESIDENT);
        let k_at = K_AT + lane.c * K_PITCH;
        for (var g = 0u; g < groups; g++) {
            let k0 = arena[k_at + g];
            let k1 = arena[k_at + LANES_C * K_PITCH + g];
            let k2 = arena[k_at + 2u * LANES_C * K_PITCH + g];
            let k3 = arena[k_at + 3u * LANES_C * K_PITCH + g];
            s.a = dots(arena[q_at + g], k0, k1, k2, k3, s.a);
            s.b = dots(arena[q_at + LANES_R * Q_PITCH + g], k0, k1, k2, k3, s.b);
            s.c = dots(arena[q_at + 2u * LANES_R * Q_PITCH + g], k0, k1, k2, k3, s.c);
            s.d = dots(arena[q_at + 3u * LANES_R * Q_PITCH + g], k0, k1, k2, k3, s.d);
        }
    }
    return s;
}

fn write_rows(at: Head, lane: Lane) {
    strange_rows = strange_rows | strange_columns(o);
    if (WIDE) { strange_rows = strange_rows | strange_columns(wide); }
    l = sum_over_lanes(lane, marked(l));
    let row = at.first_row + lane.r;
    let a = row_end(at, row, m.x, l.x);
    let b = row_end(at, row + LANES_R, m.y, l.y);
    let c = row_end(at, row + 2u * LANES_R, m.z, l.z);
    let d = row_end(at, row + 3u * LANES_R, m.w, l.w);
    write_row(lane, a, o.a0, o.a1, wide.a0, wide.a1);
    write_row(lane, b, o.b0, o.b1, wide.b0, wide.b1);
    write_row(lane, c, o.c0, o.c1, wide.c0, wide.c1);
    write_row(lane, d, o.d0, o.d1, wide.d0, wide.d1);
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

fn stage_q(at: Head, lane: Lane, chunk: u32, groups: u32) {
    for (var e = lane.index; e < ROWS * Q_CHUNK; e += LANES) {
        let row = e / Q_CHUNK;
        let g = e % Q_CHUNK;
        if (g < groups) { arena[Q_AT + row * Q_PITCH + g] = scaled_query(at, row, chunk + g); }
    }
}

fn stage_k(at: Head, lane: Lane, first: u32, chunk: u32, groups: u32) {
    for (var e = lane.index; e < KEYS * CHUNK; e += LANES) {
        let key = e / CHUNK;
        let g = e % CHUNK;
        if (g < groups) {
            arena[K_AT + key * K_PITCH + g] = load_k(key_offset(at, first + key) + 4u * (chunk + g), HEAD_DIM - 4u * (chunk + g));
        }
    }
}

// V_KEYS keys of the tile from `key` on.
fn stage_v(at: Head, lane: Lane, tile: KeyTile, key: u32) {
    for (var e = lane.index; e < V_KEYS * V_PITCH; e += LANES) {
        let g = e % V_PITCH;
        var x = vec4(0.0);
        if (g < VALUE_GROUPS) {
            let j = key + e / V_PITCH;
            x = load_v(value_offset(at, tile.first + j) + 4u * g, VALUE_DIM - 4u * g);
            // Where all rows attend all keys, it shows in o.
            if (is_masked(tile) || SCORES_MAY_DROP) { x = finite_or_noted(j, x); }
        }
        arena[V_AT + e] = x;
    }
}

// --- small algebra ---

fn rescaled(o: Columns, f: vec4<f32>, x: Columns) -> Columns {
    return Columns(fma(o.a0, vec4(f.x), x.a0), fma(o.a1, vec4(f.x), x.a1), fma(o.b0, vec4(f.y), x.b0), fma(o.b1, vec4(f.y), x.b1),
                   fma(o.c0, vec4(f.z), x.c0), fma(o.c1, vec4(f.z), x.c1), fma(o.d0, vec4(f.w), x.d0), fma(o.d1, vec4(f.w), x.d1));
}

// --- reductions over the LANES_C lanes that share 4 queries, always in the same order ---

fn max_over_lanes(lane: Lane, x: vec4<f32>) -> vec4<f32> {
    arena[REDUCE_AT + lane.c * LANES_R + lane.r] = x;
    workgroupBarrier();
    var result = arena[REDUCE_AT + lane.r];
    for (var c = 1u; c < LANES_C; c++) { result = max(result, arena[REDUCE_AT + c * LANES_R + lane.r]); }
    return result;
}

fn sum_over_lanes(lane: Lane, x: vec4<f32>) -> vec4<f32> {
    workgroupBarrier(); // the last max_over_lanes is read to its end
    arena[REDUCE_AT + lane.c * LANES_R + lane.r] = x;
    workgroupBarrier();
    var result = arena[REDUCE_AT + lane.r];
    for (var c = 1u; c < LANES_C; c++) { result += arena[REDUCE_AT + c * LANES_R + lane.r]; }
    return result;
}

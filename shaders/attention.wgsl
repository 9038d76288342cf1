// Blocked attention with an online softmax: the one kernel under every pattern.
//
//     o_i = sum over j in S_i of exp(score(i, j) - lse_i) v_j,    lse_i = ln sum over j in S_i of exp(score(i, j))
//
// A workgroup owns ROWS queries of one head and walks the tiles of KEYS keys that the block mask names, keeping for
// each query the running maximum m, the sum l and the unnormalised output o (Milakov & Gimelshein 2018; Dao 2022,
// algorithm 1):
//
//     m' = max(m, max_j s_j)    a = 2^(m - m')    p_j = 2^(s_j - m')    l = a l + sum_j p_j    o = a o + sum_j p_j v_j
//
// Scores are in base 2: log2(e) is folded into q (score/plain.wgsl) or applied after the score is complete
// (score/full.wgsl), so that each exponential is one exp2.
//
// LANES_R x LANES_C lanes; a lane holds 4 queries (r = 0..3: lane_r + r LANES_R) by 4 keys (t = 0..3: lane_c + t LANES_C)
// of the scores, and the same 4 queries by 2 or 4 (WIDE) groups of 4 columns of the output. Interleaving by LANES_R
// and LANES_C, and odd row pitches, keep the workgroup memory free of bank conflicts. All tiles are named vectors,
// not arrays: with wgpu's checked loops no compiler unrolls, and an array indexed by a loop leaves the registers.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work ..
    end_work: u32,          //   .. end_work; an item is (batch, head, ROWS queries)
    row_tiles: u32,         // row tiles a head
    heads: u32,             // H
    heads_a_kv_head: u32,   // H / Hkv
    q_len: u32,             // Lq of the tensors
    q_count: u32,           // queries of this part: Lq, or the length of its query order
    k_count: u32,           // keys of this part: Lk, or the length of its key order
    q_batch: u32, q_head: u32, q_row: u32,          // strides in elements
    k_batch: u32, k_head: u32, k_row: u32,
    v_batch: u32, v_head: u32, v_row: u32,
    out_batch: u32, out_head: u32, out_row: u32,
    bias_batch: u32, bias_head: u32, bias_query: u32, bias_key: u32,
    rows_at: u32,           // where the tables of `mask` begin, in words; see PackedMask
    runs_at: u32,
    tiles_at: u32,
    q_order_at: u32,
    k_order_at: u32,
    slopes_at: u32,
    mask_batch: u32,        // strides of the row table, in block rows; 0 where shared
    mask_head: u32,
    q_scale: f32,           // factor of q
    softcap: f32,
    part: u32,              // which of the parts that share their tables
    groups_at: u32,         // tables of places, see keep/lsh.wgsl
    places_at: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<in_word>;                 // [B, H, Lq, d]
@group(0) @binding(2) var<storage, read> k: array<in_word>;                 // [B, Hkv, Lk, d]
@group(0) @binding(3) var<storage, read> v: array<in_word>;                 // [B, Hkv, Lk, dv]
@group(0) @binding(4) var<storage, read> mask: array<u32>;                  // block mask, orders, slopes; or places
@group(0) @binding(5) var<storage, read_write> out: array<out_word>;        // [B, H, Lq, dv]
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;           // lse [B, H, Lq] or (m, l) [B, H, Lq, 2]
@group(0) @binding(7) var<storage, read> bias: array<f32>;                  // broadcast to [B, H, Lq, Lk]; or norms [B, H, Lk]

// One workgroup array, cut by the constants *_AT: q and k chunks while scores are computed, then p and v over them.
var<workgroup> arena: array<vec4<f32>, ARENA>;

var<private> m: vec4<f32>;      // running maximum of the lane's 4 queries; DROPPED while nothing was seen
var<private> l: vec4<f32>;      // this lane's share of the running sum
var<private> o: Columns;        // output columns lane_c and lane_c + LANES_C, in groups of 4
var<private> wide: Columns;     // columns lane_c + 2 LANES_C and lane_c + 3 LANES_C, where WIDE

// Output of 4 queries by two groups of 4 columns.
struct Columns { a0: vec4<f32>, a1: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>,
                 c0: vec4<f32>, c1: vec4<f32>, d0: vec4<f32>, d1: vec4<f32> }

// Scores of 4 queries (a, b, c, d) by 4 keys (x, y, z, w).
struct Scores { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

// Where a lane works.
struct Lane { index: u32, r: u32, c: u32 }

// The head that a workgroup computes: element offsets of its rows, what positions need, and its rows.
struct Head { batch: u32, head: u32, q_at: u32, k_at: u32, v_at: u32, first_row: u32, end_row: u32 }

// A tile of `count` keys from `first` on; `kind` is FULL or what `keep` needs to know, such as the bit tile of its block,
// of which it begins at `offset`.
struct KeyTile { first: u32, count: u32, kind: u32, offset: u32 }

const FULL = 0xffffffffu;
const DROPPED = -0x1.fffffep+127f; // f32::MIN, below every score: score/full.wgsl clamps

@compute @workgroup_size(LANES)
fn attention(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) index: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    // The last rows come first: under a causal mask they take longest.
    let row_tile = params.row_tiles - 1u - work % params.row_tiles;
    let head = work / params.row_tiles % params.heads;
    let batch = work / params.row_tiles / params.heads;
    let kv_head = head / params.heads_a_kv_head;
    let rows = rows_of(row_tile);
    if (rows.x >= rows.y) { return; }
    let at = Head(batch, head,
        batch * params.q_batch + head * params.q_head,
        batch * params.k_batch + kv_head * params.k_head,
        batch * params.v_batch + kv_head * params.v_head,
        rows.x, rows.y);
    let lane = Lane(index, index / LANES_C, index % LANES_C);

    m = vec4(DROPPED);
    l = vec4(0.0);
    if (Q_RESIDENT) { stage_q(at, lane, 0u, HEAD_GROUPS); }
    walk(at, lane);
    finish(at, lane);
}

// The online-softmax step over one tile of keys.
fn attend(at: Head, lane: Lane, tile: KeyTile) {
    let masked = tile.kind != FULL || tile.count < KEYS;
    var s = complete(at, lane, tile, dot_products(at, lane, tile));
    if (masked) {
        let row = at.first_row % BLOCK_Q + lane.r;
        s.a = select(vec4(DROPPED), s.a, seen(tile, row, lane.c));
        s.b = select(vec4(DROPPED), s.b, seen(tile, row + LANES_R, lane.c));
        s.c = select(vec4(DROPPED), s.c, seen(tile, row + 2u * LANES_R, lane.c));
        s.d = select(vec4(DROPPED), s.d, seen(tile, row + 3u * LANES_R, lane.c));
    }

    let own_max = vec4(max4(s.a), max4(s.b), max4(s.c), max4(s.d));
    let new_m = max(m, max_over_lanes(lane, own_max));
    // Exactly 1 while the maximum stays, whatever exp2(0) is; the bound keeps a first maximum from overflowing.
    let rescale = select(exp2(max(m - new_m, vec4(-200.0))), vec4(1.0), m == new_m);
    m = new_m;

    var p = Scores(exp2(s.a - m.x), exp2(s.b - m.y), exp2(s.c - m.z), exp2(s.d - m.w));
    if (masked || SCORES_MAY_DROP) {
        p.a = select(vec4(0.0), p.a, s.a > vec4(DROPPED));
        p.b = select(vec4(0.0), p.b, s.b > vec4(DROPPED));
        p.c = select(vec4(0.0), p.c, s.c > vec4(DROPPED));
        p.d = select(vec4(0.0), p.d, s.d > vec4(DROPPED));
    }
    l = fma(l, rescale, vec4(sum4(p.a), sum4(p.b), sum4(p.c), sum4(p.d)));
    o = scaled(o, rescale);
    if (WIDE) { wide = scaled(wide, rescale); }

    // Every lane is past the scores (max_over_lanes): p and v may lie over q and k.
    arena[P_AT + lane.c * P_PITCH + lane.r] = vec4(p.a.x, p.b.x, p.c.x, p.d.x);
    arena[P_AT + (lane.c + LANES_C) * P_PITCH + lane.r] = vec4(p.a.y, p.b.y, p.c.y, p.d.y);
    arena[P_AT + (lane.c + 2u * LANES_C) * P_PITCH + lane.r] = vec4(p.a.z, p.b.z, p.c.z, p.d.z);
    arena[P_AT + (lane.c + 3u * LANES_C) * P_PITCH + lane.r] = vec4(p.a.w, p.b.w, p.c.w, p.d.w);
    for (var key = 0u; key < KEYS; key += V_KEYS) {
        if (key > 0u) { workgroupBarrier(); }
        stage_v(at, lane, tile.first + key, masked);
        workgroupBarrier();
        for (var j = 0u; j < V_KEYS; j++) {
            let p_j = arena[P_AT + (key + j) * P_PITCH + lane.r];
            let v_j = V_AT + j * V_PITCH + lane.c;
            o = accumulated(o, p_j, arena[v_j], arena[v_j + LANES_C]);
            if (WIDE) { wide = accumulated(wide, p_j, arena[v_j + 2u * LANES_C], arena[v_j + 3u * LANES_C]); }
        }
    }
}

// q . k of the lane's 4 queries and 4 keys, a chunk of the head dimension at a time.
fn dot_products(at: Head, lane: Lane, tile: KeyTile) -> Scores {
    var s: Scores;
    for (var chunk = 0u; chunk < HEAD_GROUPS; chunk += CHUNK) {
        let groups = min(CHUNK, HEAD_GROUPS - chunk);
        workgroupBarrier(); // the last tile's v, or the last chunk, is read to its end
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

// From products to scores; positions are those of the tensors, behind the orders.
fn complete(at: Head, lane: Lane, tile: KeyTile, s: Scores) -> Scores {
    if (!SCORES_NEED_POSITIONS) { return s; }
    let row = at.first_row + lane.r;
    let key = tile.first + lane.c;
    let j = vec4(key_at(at, key), key_at(at, key + LANES_C),
                 key_at(at, key + 2u * LANES_C), key_at(at, key + 3u * LANES_C));
    return Scores(score(at.batch, at.head, query_at(at, row), j, s.a),
                  score(at.batch, at.head, query_at(at, row + LANES_R), j, s.b),
                  score(at.batch, at.head, query_at(at, row + 2u * LANES_R), j, s.c),
                  score(at.batch, at.head, query_at(at, row + 3u * LANES_R), j, s.d));
}

// Which of the lane's 4 keys row `row` of the block sees.
fn seen(tile: KeyTile, row: u32, c: u32) -> vec4<bool> {
    let t = vec4(c, c + LANES_C, c + 2u * LANES_C, c + 3u * LANES_C);
    let inside = t < vec4(tile.count);
    if (tile.kind == FULL) { return inside; }
    // A short tile's last lanes look past the block: `inside` discards what they read.
    return inside & keep(tile.kind, row, min(t + tile.offset, vec4(BLOCK_K - 1u)));
}

// Normalises, merges with what earlier parts left, and writes.
fn finish(at: Head, lane: Lane) {
    l = sum_over_lanes(lane, l);
    let row = at.first_row + lane.r;
    let a = write_row(at, lane, row, m.x, l.x, o.a0, o.a1, wide.a0, wide.a1);
    let b = write_row(at, lane, row + LANES_R, m.y, l.y, o.b0, o.b1, wide.b0, wide.b1);
    let c = write_row(at, lane, row + 2u * LANES_R, m.z, l.z, o.c0, o.c1, wide.c0, wide.c1);
    let d = write_row(at, lane, row + 3u * LANES_R, m.w, l.w, o.d0, o.d1, wide.d0, wide.d1);
    if (STATS == STATS_STATE) {
        storageBarrier(); // every lane of a row has read the earlier parts' (m, l)
        write_state(at, lane, row, a);
        write_state(at, lane, row + LANES_R, b);
        write_state(at, lane, row + 2u * LANES_R, c);
        write_state(at, lane, row + 3u * LANES_R, d);
    }
}

// Returns (m, l) of all parts so far.
fn write_row(at: Head, lane: Lane, row: u32, row_m: f32, row_l: f32,
             o0: vec4<f32>, o1: vec4<f32>, o2: vec4<f32>, o3: vec4<f32>) -> vec2<f32> {
    if (row >= at.end_row) { return vec2(0.0); }
    let i = query_at(at, row);
    let stat = (at.batch * params.heads + at.head) * params.q_len + i;
    var all_m = row_m;
    var all_l = row_l;
    var old_weight = 0.0;
    var new_weight = 1.0;
    if (ACCUMULATE) {
        // Disjoint sets merge by their maxima and sums, which stay apart: ln(l) + m would lose l behind a huge m.
        let old_m = stats[2u * stat];
        let old_l = stats[2u * stat + 1u];
        all_m = max(row_m, old_m);
        old_weight = old_l * exp2(max(old_m - all_m, -200.0));
        new_weight = exp2(max(row_m - all_m, -200.0));
        all_l = fma(row_l, new_weight, old_weight);
    }
    // An empty row is exactly 0.
    let factor = select(0.0, 1.0 / all_l, all_l > 0.0);
    let out_at = at.batch * params.out_batch + at.head * params.out_head + i * params.out_row;
    write_group(out_at, lane.c, o0, factor * new_weight, factor * old_weight);
    write_group(out_at, lane.c + LANES_C, o1, factor * new_weight, factor * old_weight);
    if (WIDE) {
        write_group(out_at, lane.c + 2u * LANES_C, o2, factor * new_weight, factor * old_weight);
        write_group(out_at, lane.c + 3u * LANES_C, o3, factor * new_weight, factor * old_weight);
    }
    if (lane.c == 0u && STATS == STATS_LSE) {
        stats[stat] = select(DROPPED, (all_m + log2(all_l)) * 0.6931471805599453, all_l > 0.0);
    }
    return vec2(all_m, all_l);
}

fn write_state(at: Head, lane: Lane, row: u32, state: vec2<f32>) {
    if (lane.c > 0u || row >= at.end_row) { return; }
    let stat = (at.batch * params.heads + at.head) * params.q_len + query_at(at, row);
    stats[2u * stat] = state.x;
    stats[2u * stat + 1u] = state.y;
}

fn write_group(out_at: u32, group: u32, o: vec4<f32>, new_weight: f32, old_weight: f32) {
    if (group >= VALUE_GROUPS) { return; }
    var value = o * new_weight;
    if (ACCUMULATE) { value = fma(load_out(out_at, group), vec4(old_weight), value); }
    store_out(out_at, group, value);
}

// --- staging: workgroup memory filled by all lanes together ---

fn stage_q(at: Head, lane: Lane, chunk: u32, groups: u32) {
    for (var e = lane.index; e < ROWS * Q_CHUNK; e += LANES) {
        let row = e / Q_CHUNK;
        let g = e % Q_CHUNK;
        if (g < groups) {
            let i = query_at(at, min(at.first_row + row, params.q_count - 1u));
            arena[Q_AT + row * Q_PITCH + g] = load_q(at.q_at + i * params.q_row, chunk + g) * params.q_scale;
        }
    }
}

fn stage_k(at: Head, lane: Lane, first: u32, chunk: u32, groups: u32) {
    for (var e = lane.index; e < KEYS * CHUNK; e += LANES) {
        let key = e / CHUNK;
        let g = e % CHUNK;
        if (g < groups) {
            let j = key_at(at, first + key);
            arena[K_AT + key * K_PITCH + g] = load_k(at.k_at + j * params.k_row, chunk + g);
        }
    }
}

// Where pairs are left out, by the mask or by a bias of -inf, rows multiply v by 0, and 0 x NaN is not 0: what is not
// finite becomes 0 there. Rows that do
// attend such a value are unspecified anyway.
fn stage_v(at: Head, lane: Lane, first: u32, masked: bool) {
    for (var e = lane.index; e < V_KEYS * V_PITCH; e += LANES) {
        let g = e % V_PITCH;
        var value = vec4(0.0);
        if (g < VALUE_GROUPS) {
            let j = key_at(at, first + e / V_PITCH);
            value = load_v(at.v_at + j * params.v_row, g);
            if (masked || SCORES_MAY_DROP) { value = select(value, vec4(0.0), not_finite(value)); }
        }
        arena[V_AT + e] = value;
    }
}

fn not_finite(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4(0x7f800000u)) == vec4(0x7f800000u);
}

// --- small algebra ---

fn dots(q: vec4<f32>, k0: vec4<f32>, k1: vec4<f32>, k2: vec4<f32>, k3: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    return vec4(dot_add(q, k0, s.x), dot_add(q, k1, s.y), dot_add(q, k2, s.z), dot_add(q, k3, s.w));
}

fn dot_add(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

fn accumulated(o: Columns, p: vec4<f32>, v0: vec4<f32>, v1: vec4<f32>) -> Columns {
    return Columns(fma(vec4(p.x), v0, o.a0), fma(vec4(p.x), v1, o.a1), fma(vec4(p.y), v0, o.b0), fma(vec4(p.y), v1, o.b1),
                   fma(vec4(p.z), v0, o.c0), fma(vec4(p.z), v1, o.c1), fma(vec4(p.w), v0, o.d0), fma(vec4(p.w), v1, o.d1));
}

fn scaled(o: Columns, f: vec4<f32>) -> Columns {
    return Columns(o.a0 * f.x, o.a1 * f.x, o.b0 * f.y, o.b1 * f.y, o.c0 * f.z, o.c1 * f.z, o.d0 * f.w, o.d1 * f.w);
}

fn max4(x: vec4<f32>) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }

fn sum4(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }

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

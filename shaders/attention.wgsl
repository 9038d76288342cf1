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
// Scores are worked on by fours: 4 queries (k = 0..3: r + k LANES_R) by 4 keys (t = 0..3: c + t LANES_C). How the lanes of
// a workgroup share them, and where q, k, v and o lie meanwhile, is a provider's: tile/staged.wgsl for GPUs, tile/direct.wgsl
// for CPUs. It defines `row_tile_at` (the order of
// the work), `begin`, `attend` (the step above over one tile of keys) and `finish`. All that is kept in registers
// are named vectors, not arrays: with wgpu's checked loops no compiler unrolls, and an array indexed by a loop leaves the
// registers.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work ..
    end_work: u32,          //   .. end_work; an item is (batch, head, ROWS queries, split of the keys)
    row_tiles: u32,         // row tiles a head
    splits: u32,            // every so many tiles of keys are one work item's
    batch: u32,             // B
    heads: u32,             // H
    heads_a_kv_head: u32,   // H / Hkv
    q_len: u32,             // Lq of the tensors
    q_count: u32,           // rows of this part: Lq, the length of its query order, or H / Hkv Lq where PACKED
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
@group(0) @binding(5) var<storage, read_write> out: array<out_word>;        // [B, H, Lq, dv], once a split
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;           // lse [B, H, Lq] or (m, l) [B, H, Lq, 2], once a split
@group(0) @binding(7) var<storage, read> bias: array<f32>;                  // broadcast to [B, H, Lq, Lk]; or norms [B, H, Lk]

var<private> m: vec4<f32>;      // running maximum of the lane's 4 queries; DROPPED while nothing was seen
var<private> l: vec4<f32>;      // the lane's share of their running sums

// Scores of 4 queries (a, b, c, d) by 4 keys (x, y, z, w).
struct Scores { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

// Where a lane works: its queries begin at row r of the row tile, its keys at key c of the tile of keys.
struct Lane { index: u32, r: u32, c: u32 }

// What a workgroup computes: the batch item, the head (the first of several where PACKED), its rows, its share of the keys;
// element offsets of the keys and values.
struct Head { batch: u32, head: u32, k_at: u32, v_at: u32, first_row: u32, end_row: u32, split: u32 }

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
    let split = work % params.splits;
    let tile = work / params.splits;
    let rows = rows_of(row_tile_at(tile % params.row_tiles));
    if (rows.x >= rows.y) { return; }
    var head = tile / params.row_tiles % head_count();
    let batch = tile / params.row_tiles / head_count();
    if (PACKED) { head *= params.heads_a_kv_head; }
    let kv_head = head / params.heads_a_kv_head;
    let at = Head(batch, head,
        batch * params.k_batch + kv_head * params.k_head,
        batch * params.v_batch + kv_head * params.v_head,
        rows.x, rows.y, split);
    let lane = Lane(index, index / LANES_A_ROW, index % LANES_A_ROW);

    m = vec4(DROPPED);
    l = vec4(0.0);
    begin(at, lane);
    walk(at, lane);
    finish(at, lane);
}

// --- rows ---
//
// A row is a query of one head. Where there are few queries, the query heads that share a key head are PACKED: their queries
// are the rows of one tile, so that k and v are read once for all of them.

// Heads, or groups of them, that a batch item has work items for.
fn head_count() -> u32 {
    if (PACKED) { return params.heads / params.heads_a_kv_head; }
    return params.heads;
}

fn head_of(at: Head, row: u32) -> u32 {
    if (PACKED) { return at.head + min(row, params.q_count - 1u) / params.q_len; }
    return at.head;
}

// The row of the mask's block that says what a row sees.
fn row_in_block(row: u32) -> u32 {
    if (PACKED) { return row % params.q_len; }
    return row % BLOCK_Q;
}

// --- one tile of keys ---

// Whether some pairs of the tile are left out.
fn is_masked(tile: KeyTile) -> bool { return tile.kind != FULL || tile.count < KEYS; }

// From products to scores: the other terms of the score, at the tensors' positions behind the orders, and DROPPED for
// pairs that the mask leaves out.
fn scores(at: Head, lane: Lane, tile: KeyTile, products: Scores) -> Scores {
    var s = products;
    if (SCORES_NEED_POSITIONS) {
        let row = at.first_row + lane.r;
        let key = tile.first + lane.c;
        let j = vec4(key_at(at, key), key_at(at, key + LANES_C),
                     key_at(at, key + 2u * LANES_C), key_at(at, key + 3u * LANES_C));
        s = Scores(row_score(at, row, j, s.a), row_score(at, row + LANES_R, j, s.b),
                   row_score(at, row + 2u * LANES_R, j, s.c), row_score(at, row + 3u * LANES_R, j, s.d));
    }
    if (is_masked(tile)) {
        let row = at.first_row + lane.r;
        s.a = select(vec4(DROPPED), s.a, seen(tile, row_in_block(row), lane.c));
        s.b = select(vec4(DROPPED), s.b, seen(tile, row_in_block(row + LANES_R), lane.c));
        s.c = select(vec4(DROPPED), s.c, seen(tile, row_in_block(row + 2u * LANES_R), lane.c));
        s.d = select(vec4(DROPPED), s.d, seen(tile, row_in_block(row + 3u * LANES_R), lane.c));
    }
    return s;
}

// Rows past the last repeat it, so that no index lies outside.
fn row_score(at: Head, row: u32, j: vec4<u32>, products: vec4<f32>) -> vec4<f32> {
    let own = min(row, params.q_count - 1u);
    return score(at.batch, head_of(at, own), query_at(at, own), j, products);
}

// Which of 4 keys, from c on, row `row` of the block sees.
fn seen(tile: KeyTile, row: u32, c: u32) -> vec4<bool> {
    let t = vec4(c, c + LANES_C, c + 2u * LANES_C, c + 3u * LANES_C);
    let inside = t < vec4(tile.count);
    if (tile.kind == FULL) { return inside; }
    // A short tile's last lanes look past the block: `inside` discards what they read.
    return inside & keep(tile.kind, row, min(t + tile.offset, vec4(BLOCK_K - 1u)));
}

// Takes a new maximum; returns the factors of l and o. A factor is exactly 1 while the maximum stays, whatever exp2(0)
// is; the bound keeps a first maximum from overflowing.
fn raise_maximum(new_m: vec4<f32>) -> vec4<f32> {
    let factor = select(exp2(max(m - new_m, vec4(-200.0))), vec4(1.0), m == new_m);
    m = new_m;
    return factor;
}

// p = 2^(s - m), and exactly 0 for pairs that are left out.
fn weights(tile: KeyTile, s: Scores) -> Scores {
    var p = Scores(exp2(s.a - m.x), exp2(s.b - m.y), exp2(s.c - m.z), exp2(s.d - m.w));
    if (is_masked(tile) || SCORES_MAY_DROP) {
        p.a = select(vec4(0.0), p.a, s.a > vec4(DROPPED));
        p.b = select(vec4(0.0), p.b, s.b > vec4(DROPPED));
        p.c = select(vec4(0.0), p.c, s.c > vec4(DROPPED));
        p.d = select(vec4(0.0), p.d, s.d > vec4(DROPPED));
    }
    return p;
}

// A row's maximum, or sum, over 4 keys.
fn maxima(s: Scores) -> vec4<f32> { return vec4(max4(s.a), max4(s.b), max4(s.c), max4(s.d)); }

fn sums(p: Scores) -> vec4<f32> { return vec4(sum4(p.a), sum4(p.b), sum4(p.c), sum4(p.d)); }

fn max4(x: vec4<f32>) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }

fn sum4(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }

// --- elements ---

// 4 elements of the query of a row of the tile; rows past the last repeat it.
fn query(at: Head, row: u32, group: u32) -> vec4<f32> {
    let own = min(at.first_row + row, params.q_count - 1u);
    let row_at = at.batch * params.q_batch + head_of(at, own) * params.q_head + query_at(at, own) * params.q_row;
    return load_q(row_at, group);
}

fn scaled_query(at: Head, row: u32, group: u32) -> vec4<f32> { return query(at, row, group) * params.q_scale; }

// Where pairs are left out, by the mask or by a bias of -inf, rows multiply v by 0, and 0 x NaN is not 0: what is not
// finite becomes 0 there. Rows that do attend such a value are unspecified anyway.
fn value(at: Head, tile: KeyTile, j: u32, group: u32) -> vec4<f32> {
    let x = load_v(at.v_at + j * params.v_row, group);
    if (is_masked(tile) || SCORES_MAY_DROP) { return select(x, vec4(0.0), not_finite(x)); }
    return x;
}

fn not_finite(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4(0x7f800000u)) == vec4(0x7f800000u);
}

// --- the end of a row ---

// What is written of a row: where, its state over all parts so far, and how its output weighs against the earlier parts'.
struct RowEnd { inside: bool, stat: u32, out_at: u32, m: f32, l: f32, new_weight: f32, old_weight: f32 }

fn row_end(at: Head, row: u32, row_m: f32, row_l: f32) -> RowEnd {
    if (row >= at.end_row) { return RowEnd(); }
    let i = query_at(at, row);
    let head = head_of(at, row);
    // Splits leave their results beside each other, like so many batches.
    let batch = at.split * params.batch + at.batch;
    let stat = (batch * params.heads + head) * params.q_len + i;
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
    let out_at = batch * params.out_batch + head * params.out_head + i * params.out_row;
    return RowEnd(true, stat, out_at, all_m, all_l, factor * new_weight, factor * old_weight);
}

fn write_group(end: RowEnd, group: u32, o: vec4<f32>) {
    if (!end.inside || group >= VALUE_GROUPS) { return; }
    var x = o * end.new_weight;
    if (ACCUMULATE) { x = fma(load_out(end.out_at, group), vec4(end.old_weight), x); }
    store_out(end.out_at, group, x);
}

// Once every lane of the row has read the earlier parts' state.
fn write_stats(end: RowEnd) {
    if (!end.inside) { return; }
    if (STATS == STATS_LSE) {
        stats[end.stat] = select(DROPPED, (end.m + log2(end.l)) * 0.6931471805599453, end.l > 0.0);
    }
    if (STATS == STATS_STATE) {
        stats[2u * end.stat] = end.m;
        stats[2u * end.stat + 1u] = end.l;
    }
}

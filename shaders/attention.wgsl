// Blocked attention with an online softmax: the one kernel under every pattern.
//
//     o_i = sum over j in S_i of exp(score(i, j) - lse_i) v_j,    lse_i = ln sum over j in S_i of exp(score(i, j))
//
// A workgroup owns ROWS queries of one head and walks the tiles of KEYS keys that `walk` names, keeping for each query the
// running maximum m, the sum l and the unnormalised output o (Milakov & Gimelshein 2018; Dao 2022, algorithm 1):
//
//     m' = max(m, max_j s_j)    a = e^(m - m')    p_j = e^(s_j - m')    l = a l + sum_j p_j    o = a o + sum_j p_j v_j
//
// Scores are worked on by fours: 4 queries (k = 0..3: r + k LANES_R) by 4 keys (t = 0..3: c + t LANES_C). What else there is
// to know has a file of its own:
//
//     lanes/   which lane works where: the entry point
//     keep/    which queries and keys meet: rows_of, has_tiles, walk, keep, query_at, key_offset, value_offset, key_at
//     heads/   which query heads are computed: head_items, nth_head
//     score/   what is added to scale q . k: content, related, segmented, score; which weights meet their values: met, dropout_factor
//     tile/    how the lanes of a workgroup share the work, and where q, k, v and o lie meanwhile: row_tile_at, begin,
//              attend (the step above over one tile of keys), write_rows
//     stats/   what is left of a row beside out: write_stats, earlier
//     tensor/  how the elements of a tensor are stored: load_q, load_k, load_v, store_out, load_out
//     lib/     scores, online softmax, merge
//
// All that is kept in registers are named vectors, not arrays: with wgpu's checked loops no compiler unrolls, and an array
// indexed by a loop leaves the registers.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work ..
    end_work: u32,          //   .. end_work; an item is (batch, head, ROWS queries, split of the keys)
    row_tiles: u32,         // row tiles per head
    splits: u32,            // work items that share the keys of a row tile,
    tiles_per_split: u32,   //   in its order: so many tiles of keys are the first one's, as many the next one's
    batch: u32,             // B
    heads: u32,             // H
    heads_per_kv_head: u32, // H / Hkv
    q_len: u32,             // Lq of the tensors
    kv_len: u32,            // Lk of the tensors
    q_count: u32,           // rows of this part: Lq, the length of its query order, or H / Hkv Lq where PACKED
    k_count: u32,           // keys of this part: Lk, or the length of its key order
    q_scale: f32,           // factor of q
}

// Where the rows of a tensor [batch, head, row, element] lie, in elements; strides may be negative, in two's complement.
struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

fn row_at(rows: Rows, batch: u32, head: u32, row: u32) -> u32 {
    return rows.offset + batch * rows.batch + head * rows.head + row * rows.row;
}

var<private> m: vec4<f32>;      // running maximum of the lane's 4 queries; DROPPED while nothing was seen
var<private> l: vec4<f32>;      // the lane's share of their running sums

// Scores of 4 queries (a, b, c, d) by 4 keys (x, y, z, w).
struct Scores { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

// Where a lane works: its queries begin at row r of the row tile, its keys at key c of the tile of keys.
struct Lane { index: u32, r: u32, c: u32 }

// What a workgroup computes: the batch item, the head (the first of several where PACKED), its rows, its share of the keys;
// element offsets of the head's keys and values.
struct Head { batch: u32, head: u32, k_at: u32, v_at: u32, first_row: u32, end_row: u32, split: u32 }

// A tile of `count` keys from `first` on; `kind` is FULL or what `keep` needs to know, such as the bit tile of its block,
// of which it begins at `offset`.
struct KeyTile { first: u32, count: u32, kind: u32, offset: u32 }

const FULL = 0xffffffffu;
const DROPPED = -0x1.fffffep+127f; // f32::MIN: no score yet, or a pair that is left out
const LOWEST = -0x1.fffffcp+127f;  // the lowest score of a pair that is not

// Lanes in the order of their numbers.
fn lane_at(index: u32) -> Lane { return Lane(index, index / LANES_PER_ROW, index % LANES_PER_ROW); }

// All that a workgroup does, by its place in the dispatch.
fn attend_rows(place: u32, lane: Lane) {
    let work = params.kernel.first_work + place;
    if (work >= params.kernel.end_work) { return; }
    var split = 0u;
    var tile = work;
    if (MAY_SPLIT) {
        split = work % params.kernel.splits;
        tile = work / params.kernel.splits;
    }
    let rows = rows_of(row_tile_at(tile % params.kernel.row_tiles));
    if (rows.x >= rows.y) { return; }
    let n = tile / params.kernel.row_tiles % head_count();
    let batch = tile / params.kernel.row_tiles / head_count();
    var head = n * params.kernel.heads_per_kv_head;
    if (!PACKED) { head = nth_head(n); }
    let kv_head = head / params.kernel.heads_per_kv_head;
    let at = Head(batch, head,
        row_at(params.k, batch, kv_head, 0u), row_at(params.v, batch, kv_head, 0u),
        rows.x, rows.y, split);
    if (MAY_SPLIT && split > 0u && !has_tiles(at)) {
        leave_nothing(at, lane);
        return;
    }

    begin_rows(at, lane);
    begin(at, lane);
    walk(at, lane);
    write_rows(at, lane);
}

// What is kept of the lane's 4 queries, before the first key.
fn begin_rows(at: Head, lane: Lane) {
    m = vec4(DROPPED);
    l = vec4(0.0);
    lowest = vec4(0.0);
    strange_rows = vec4(false);
    begin_sums(at, lane);
    begin_segments(at, lane);
    begin_dropout(at, lane);
}

// --- rows ---
//
// A row is a query of one head. Where there are few queries, the query heads that share a key head are PACKED: their queries
// are the rows of one tile, so that k and v are read once for all of them.

// Heads, or groups of them, that a batch item has work items for.
fn head_count() -> u32 {
    if (PACKED) { return params.kernel.heads / params.kernel.heads_per_kv_head; }
    return head_items();
}

fn head_of(at: Head, row: u32) -> u32 {
    if (PACKED) { return at.head + min(row, params.kernel.q_count - 1u) / params.kernel.q_len; }
    return at.head;
}

// The row of the mask's block that says what a row sees.
fn row_in_block(row: u32) -> u32 {
    if (PACKED) { return row % params.kernel.q_len; }
    return row % BLOCK_Q;
}

// 4 elements of the query of a row of the tile; rows past the last repeat it.
fn query(at: Head, row: u32, group: u32) -> vec4<f32> {
    let own = min(at.first_row + row, params.kernel.q_count - 1u);
    let row_at = row_at(params.q, at.batch, head_of(at, own), query_at(at, own));
    return load_q(row_at + 4u * group, HEAD_DIM - 4u * group);
}

fn scaled_query(at: Head, row: u32, group: u32) -> vec4<f32> { return content(at, row, group) * params.kernel.q_scale; }

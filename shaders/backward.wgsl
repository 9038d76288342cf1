// Gradients of blocked attention: one kernel for all passes, under every pattern.
//
//     e_ij  = exp(score(i, j) - m_i)                  ds_ij = e_ij (do_i . v_j / l_i - D_i)
//     dq_i  = scale sum_j f_ij ds_ij k_j              dk_j  = scale sum_i f_ij ds_ij q_i
//     dv_j  = sum_i e_ij / l_i do_i                   f_ij  = d score(i, j) / d (scale q_i . k_j), D_i = do_i . o_i / l_i
//
// over the pairs of S (Dao 2022, appendix B.4). A workgroup owns ROWS rows of one head and walks the tiles of KEYS columns that
// `walk` names. In one pass the rows are queries (backward/queries.wgsl: dq), in the other they are keys, the columns queries and the mask
// transposed (backward/keys.wgsl: dk and dv, over all heads of a key head). The gradients of the tensors
// of the score's terms come of passes over queries, too (backward/terms.wgsl). So no sum is shared between workgroups: there are no
// atomics, and the same call gives the same bits.
//
// Each lane holds 4 whole rows, and needs neither workgroup memory nor barriers. The columns are the same for all lanes.
//
//     keep/       which rows and columns meet: rows_of, walk, keep, query_at (of a row), key_at (of a column)
//     score/      score, and its slope f: score_slope
//     backward/   the passes: item_of, run, attend; of those over queries begin, take, end; relative rows, segments: content, relate, ...
//     tensor/     how the elements of a tensor are stored: load_q, load_k, load_v, load_dout, store_dq, store_dk, store_dv, ...

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work ..
    end_work: u32,          //   .. end_work; an item is (batch, head, ROWS rows)
    row_tiles: u32,         // row tiles per head
    splits: u32,            // 1: an item walks all columns
    heads: u32,             // H
    heads_per_kv_head: u32, // H / Hkv
    q_len: u32,             // Lq of the tensors
    kv_len: u32,            // Lk of the tensors
    q_count: u32,           // rows of this part
    k_count: u32,           // columns of this part
    q_scale: f32,           // factor of q, with log2(e) where scores are in base 2
    scale: f32,             // factor of q . k
    records: u32,           // B H Lq
    batch: u32,             // B
}

// Where the rows of a tensor [batch, head, row, element] lie, in elements; strides may be negative, in two's complement.
struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

fn row_at(rows: Rows, batch: u32, head: u32, row: u32) -> u32 {
    return rows.offset + batch * rows.batch + head * rows.head + row * rows.row;
}

// What a workgroup computes: the batch item, the query head, its rows; element offsets of the head's keys and values.
struct Head { batch: u32, head: u32, k_at: u32, v_at: u32, first_row: u32, end_row: u32, split: u32 }

// A tile of `count` columns from `first` on; `kind` is FULL or its bit tile, of which it begins at `offset`.
struct KeyTile { first: u32, count: u32, kind: u32, offset: u32 }

// Where a lane works: its rows are r + LANES t, t = 0..3, of the row tile.
struct Lane { r: u32 }

// Of a query, from records.wgsl: m, 1 / l, D, and a last element that is 0, or NaN where anything of the query is not finite.
@group(0) @binding(BINDING_records) var<storage, read> records: array<vec4<f32>>;  // [B, H, Lq], then u and w

const FULL = 0xffffffffu;
const PACKED = false;

@compute @workgroup_size(LANES)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) index: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let item = item_of(work);
    run(item.x, item.y, rows_of(item.z), Lane(index));
}

// Batch item, head and row tile of a work item: tile by tile, head by head.
fn item_in_order(work: u32, heads: u32) -> vec3<u32> {
    let row = work / params.kernel.row_tiles;
    return vec3(row / heads, row % heads, row_tile_at(work % params.kernel.row_tiles));
}

// The last rows and the first by turns: a software adapter gives each core one stretch of the work, and under a causal mask
// every stretch then has as much to do.
fn row_tile_at(place: u32) -> u32 { return select(params.kernel.row_tiles - 1u - place / 2u, place / 2u, place % 2u == 1u); }

// The rows of a lane; those past the last repeat it.
fn rows_of_lane(at: Head, lane: Lane) -> vec4<u32> {
    let rows = vec4(at.first_row + lane.r) + LANES * vec4(0u, 1u, 2u, 3u);
    return min(rows, vec4(params.kernel.q_count - 1u));
}

// --- pairs ---

// Never so for a tile that `walk` names. But where a loop has no turn, Mesa's software adapter runs its body with no lane, and
// takes a buffer's address from one: it crashes on rows without columns, unless it meets a branch.
fn is_beyond(tile: KeyTile) -> bool { return tile.first >= params.kernel.k_count; }

// Whether some pairs of the tile are left out.
fn is_masked(tile: KeyTile) -> bool { return tile.kind != FULL || tile.count < KEYS; }

// Which of the 4 columns from c on a row sees.
fn seen(tile: KeyTile, row: u32, c: u32) -> vec4<bool> {
    let t = vec4(c) + vec4(0u, 1u, 2u, 3u);
    let inside = t < vec4(tile.count);
    if (tile.kind == FULL) { return inside; }
    // A short tile's last columns look past the block: `inside` discards what they read.
    return inside & keep(tile.kind, row % BLOCK_Q, min(t + tile.offset, vec4(BLOCK_K - 1u)));
}

// Of 4 pairs of one query: the weight e / l, and the derivative by scale q . k. Exactly 0 for pairs that are left out, whatever is
// in their tensors and in the record.
struct Pulled { p: vec4<f32>, ds: vec4<f32> }

fn pull(batch: u32, head: u32, i: u32, j: vec4<u32>, record: vec4<f32>, products: vec4<f32>, d_p: vec4<f32>,
        attended: vec4<bool>) -> Pulled {
    var s = products;
    var slope = vec4(1.0);
    var kept = attended;
    if (SCORES_NEED_POSITIONS) {
        let pairs = pairs_of(batch, head, i, j);
        s = score(pairs, products);
        if (SCORES_MAY_DROP) { kept = kept & !removed; }
        slope = score_slope(pairs, products);
    }
    let e = weight(s, record.x, record.y) + vec4(record.w);
    let ds = e * (d_p - vec4(record.z));
    return Pulled(select(vec4(0.0), record.y * e, kept), select(vec4(0.0), ds * slope, kept));
}

// --- small algebra: columns of a matrix are columns of the tile, rows are the lane's 4 rows ---

// Products of the lane's rows with 4 columns, with those of one more group of elements.
fn with_products(x: mat4x4<f32>, own: mat4x4<f32>, c0: vec4<f32>, c1: vec4<f32>, c2: vec4<f32>, c3: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(product(x[0], own, c0), product(x[1], own, c1), product(x[2], own, c2), product(x[3], own, c3));
}

fn product(x: vec4<f32>, own: mat4x4<f32>, c: vec4<f32>) -> vec4<f32> {
    return fma(own[3], vec4(c.w), fma(own[2], vec4(c.z), fma(own[1], vec4(c.y), fma(own[0], vec4(c.x), x))));
}

// 4 columns weighed for each of the lane's rows, added to x; the columns of x are elements.
fn with_weighed(x: mat4x4<f32>, w: mat4x4<f32>, tile: KeyTile, c0: vec4<f32>, c1: vec4<f32>, c2: vec4<f32>, c3: vec4<f32>) -> mat4x4<f32> {
    var c = mat4x4(c0, c1, c2, c3);
    // Rows that leave a column out weigh it by 0, and 0 x NaN is not 0: there, what is not finite becomes 0. Rows that see it
    // have a weight that is NaN, by the query's record. One branch for all four: it costs as much as the sums.
    if (is_masked(tile) || SCORES_MAY_DROP) { c = mat4x4(finite(c0), finite(c1), finite(c2), finite(c3)); }
    return weighed(weighed(weighed(weighed(x, w[0], c[0]), w[1], c[1]), w[2], c[2]), w[3], c[3]);
}

fn weighed(x: mat4x4<f32>, w: vec4<f32>, c: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(w, vec4(c.x), x[0]), fma(w, vec4(c.y), x[1]), fma(w, vec4(c.z), x[2]), fma(w, vec4(c.w), x[3]));
}

fn finite(x: vec4<f32>) -> vec4<f32> { return select(x, vec4(0.0), not_finite(x)); }

fn finite_where_masked(tile: KeyTile, x: vec4<f32>) -> vec4<f32> {
    if (is_masked(tile) || SCORES_MAY_DROP) { return finite(x); }
    return x;
}

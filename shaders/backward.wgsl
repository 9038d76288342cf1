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
//     keep/       which rows and columns meet: rows_of, walk, keep, query_at (of a row), key_at (of a column)
//     heads/      which query heads are computed: head_items, nth_head, key_head_items, heads_of_key_head
//     score/      score, and its slope f: score_slope; which weights are dropped: is_met
//     backward/   queries, keys: which tensors the rows and the columns are of, and the weights of a pair: item_of, run, own_head,
//                 own_value, column_head, column_value, weights_of; dq, dk, dv: write_head, write_value; terms: take; relative, segments:
//                 content, relate, ...; direct, staged, cooperative: how the lanes of a workgroup share the work: row_tile_at, begin, attend, end
//     tensor/     how the elements of a tensor are stored: load_q, load_k, load_v, load_dout, store_dq, store_dk, store_dv, ...

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work ..
    end_work: u32,          //   .. end_work; an item is (batch, head, ROWS rows)
    row_tiles: u32,         // row tiles per head
    tiles_per_split: u32,   // the most there are: an item walks all columns
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

// Where a lane works: its rows are r + LANES_R t, t = 0..3, of the row tile; its columns begin at column c of the tile.
struct Lane { index: u32, r: u32, c: u32 }

// Of 4 rows by 4 columns (rows and columns of the matrices, too): the weights e / l, and the derivatives by scale q . k.
struct Weights { p: mat4x4<f32>, ds: mat4x4<f32> }

// The derivatives of 4 rows by the 16 columns of a tile.
struct Slopes { a: mat4x4<f32>, b: mat4x4<f32>, c: mat4x4<f32>, d: mat4x4<f32> }

// Of a query, from records.wgsl: m, 1 / l, D, and a last element that is 0, or NaN where anything of the query is not finite.
@group(0) @binding(BINDING_records) var<storage, read> records: array<vec4<f32>>;  // [B, H, Lq], then u and w, or norms

// The places of the lane's 4 rows in the tensors.
var<private> own: vec4<u32>;

const FULL = 0xffffffffu;
const PACKED = false;

@compute @workgroup_size(LANES)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) index: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let item = item_of(work);
    run(item.x, item.y, rows_of(item.z), Lane(index, index / LANES_PER_ROW, index % LANES_PER_ROW));
}

// Batch item, head and row tile of a work item: tile by tile, head by head.
fn item_in_order(work: u32, heads: u32) -> vec3<u32> {
    let row = work / params.kernel.row_tiles;
    return vec3(row / heads, row % heads, row_tile_at(work % params.kernel.row_tiles));
}

// Rows past the last repeat it.
fn own_places(at: Head, lane: Lane) -> vec4<u32> {
    let rows = min(vec4(at.first_row + lane.r) + LANES_R * vec4(0u, 1u, 2u, 3u), vec4(params.kernel.q_count - 1u));
    return vec4(query_at(at, rows.x), query_at(at, rows.y), query_at(at, rows.z), query_at(at, rows.w));
}

// The places in the tensors of the columns c of the tile.
fn columns_at(at: Head, tile: KeyTile, c: vec4<u32>) -> vec4<u32> {
    let column = vec4(tile.first) + c;
    return vec4(key_at(at, column.x), key_at(at, column.y), key_at(at, column.z), key_at(at, column.w));
}

fn records_of(at: Head, i: vec4<u32>) -> mat4x4<f32> {
    let first = (at.batch * params.kernel.heads + at.head) * params.kernel.q_len;
    return mat4x4(records[first + i.x], records[first + i.y], records[first + i.z], records[first + i.w]);
}

// --- pairs ---

// Never so for a tile that `walk` names. But where a loop has no turn, Mesa's software adapter runs its body with no lane, and
// takes a buffer's address from one: it crashes on rows without columns, unless it meets a branch.
fn is_beyond(tile: KeyTile) -> bool { return tile.first >= params.kernel.k_count; }

// Whether some pairs of the tile are left out.
fn is_masked(tile: KeyTile) -> bool { return tile.kind != FULL || tile.count < KEYS; }

// Which of 4 columns of the tile a row sees.
fn seen(tile: KeyTile, row: u32, t: vec4<u32>) -> vec4<bool> {
    let inside = t < vec4(tile.count);
    if (tile.kind == FULL) { return inside; }
    // A short tile's last columns look past the block: `inside` discards what they read.
    return inside & keep(tile.kind, row % BLOCK_Q, min(t + tile.offset, vec4(BLOCK_K - 1u)));
}

// What meets the values and the gradient of out: e and d_p, or with dropout 0 or a multiple of them.
struct Met { e: vec4<f32>, d_p: vec4<f32> }

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
        s = no_lower(score(pairs, products));
        if (SCORES_MAY_DROP) { kept = kept & !removed; }
        slope = score_slope(pairs, products);
    }
    let e = weight(s, record.x, record.y) + vec4(record.w);
    let met = met_by(i, j, e, d_p, record.w);
    let ds = e * (record.y * met.d_p - vec4(record.z));
    return Pulled(select(vec4(0.0), record.y * met.e, kept), select(vec4(0.0), ds * slope, kept));
}

fn finite(x: vec4<f32>) -> vec4<f32> { return select(x, vec4(0.0), not_finite(x)); }

fn finite_where_masked(tile: KeyTile, x: vec4<f32>) -> vec4<f32> {
    if (is_masked(tile) || SCORES_MAY_DROP) { return finite(x); }
    return x;
}

// What staged and cooperative tiles have summed up: a group of 4 elements of a row, which may lie beyond them.
fn write_group(at: Head, row: u32, g: u32, x: vec4<f32>, values: bool) {
    if (values) {
        if (g < VALUE_GROUPS) { write_value(at, row, g, x); }
    } else if (g < HEAD_GROUPS) {
        write_head(at, row, g, x);
    }
}

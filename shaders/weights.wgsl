// The weights of chosen rows of attention, from the state (m, l) that it left of them:
//
//     p_ij = exp(score(i, j) - m_i) / l_i     for the keys j of S_i
//
// A workgroup has one row and walks the tiles of its keys; a lane has 4 keys of each. Memory is what is asked for: nothing is kept
// of a tile.
//
//     keep/       which rows and keys meet: walk, keep, query_at, key_at
//     score/      score
//     weights/    what is left of a row: its weights (note), a summary of them (begin_summary, summarise, finish); and the terms that
//                 are part of the product
//     tensor/     how the elements of a tensor are stored: load_q, load_k

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work ..
    end_work: u32,          //   .. end_work; an item is a chosen row
    tiles_per_split: u32,   // the most there are: an item walks all keys
    batch: u32,             // B
    heads: u32,             // H
    heads_per_kv_head: u32, // H / Hkv
    q_len: u32,             // Lq of the tensors
    kv_len: u32,            // Lk of the tensors
    q_count: u32,           // rows of this part
    k_count: u32,           // keys of this part
    q_scale: f32,           // factor of q, with log2(e) where scores are in base 2
}

// Where the rows of a tensor [batch, head, row, element] lie, in elements; strides may be negative, in two's complement.
struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

fn row_at(rows: Rows, batch: u32, head: u32, row: u32) -> u32 {
    return rows.offset + batch * rows.batch + head * rows.head + row * rows.row;
}

// As the other kernels have it, with one row.
struct Head { batch: u32, head: u32, k_at: u32, v_at: u32, first_row: u32, end_row: u32, split: u32 }

// A tile of `count` keys from `first` on; `kind` is FULL or its bit tile, of which it begins at `offset`.
struct KeyTile { first: u32, count: u32, kind: u32, offset: u32 }

struct Lane { index: u32 }

@group(0) @binding(BINDING_state) var<storage, read> state: array<vec2<f32>>;           // (m, l) [B, H, Lq]
@group(0) @binding(BINDING_chosen) var<storage, read> chosen: array<vec4<u32>>;         // batch, head, row of this part, n

const FULL = 0xffffffffu;
const PACKED = false;
const ROWS = 1u;

// Of the row: which it is of those chosen, its query, where that begins, its maximum, 1 / l (0 without keys), ln l.
var<private> own_n: u32;
var<private> own_i: u32;
var<private> own_q_at: u32;
var<private> own_m: f32;
var<private> own_over_l: f32;
var<private> own_log_l: f32;

@compute @workgroup_size(LANES)
fn weigh(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) index: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let row = chosen[work];
    let kv_head = row.y / params.kernel.heads_per_kv_head;
    let at = Head(row.x, row.y, row_at(params.k, row.x, kv_head, 0u), row_at(params.v, row.x, kv_head, 0u), row.z, row.z + 1u, 0u);
    own_n = row.w;
    own_i = query_at(at, row.z);
    own_q_at = row_at(params.q, row.x, row.y, own_i);
    let own = state[(row.x * params.kernel.heads + row.y) * params.kernel.q_len + own_i];
    let empty = (bitcast<u32>(own.y) & 0x7fffffffu) == 0u;
    own_m = own.x;
    own_over_l = select(1.0 / own.y, 0.0, empty);
    own_log_l = select(log2(own.y) * LN_2, 0.0, empty);
    begin_segments(at);
    begin_summary();
    walk(at, Lane(index));
    finish(index);
}

const LN_2 = 0.6931471805599453;

fn query(g: u32) -> vec4<f32> { return load_q(own_q_at + 4u * g, HEAD_DIM - 4u * g); }

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    // Never so for a tile that `walk` names. But where a loop has no turn, Mesa's software adapter runs its body with no lane, and
    // takes a buffer's address from one.
    if (tile.first >= params.kernel.k_count) { return; }
    // Lanes past the tile's keys look at the last key there is, and keep nothing: no loads are behind a branch that lanes differ in.
    let c = 4u * lane.index;
    let places = vec4(c) + vec4(0u, 1u, 2u, 3u);
    let key = tile.first + c;
    let j = vec4(key_at(at, key), key_at(at, key + 1u), key_at(at, key + 2u), key_at(at, key + 3u));
    var kept = places < vec4(tile.count);
    if (tile.kind != FULL) {
        kept = kept & keep(tile.kind, at.first_row % BLOCK_Q, min(places + vec4(tile.offset), vec4(BLOCK_K - 1u)));
    }
    let pairs = pairs_of(at.batch, at.head, own_i, j);
    var s = segmented(at, j, related(at, pairs, products(at, j)));
    if (SCORES_NEED_POSITIONS) {
        s = no_lower(score(pairs, s));
        if (SCORES_MAY_DROP) { kept = kept & !removed; }
    }
    let p = select(vec4(0.0), own_over_l * weight(s, own_m, own_over_l), kept);
    // -ln p; never below 0, but by rounding.
    let log_p = (vec4(own_m) - s) * select(LN_2, 1.0, BASE_E) + vec4(own_log_l);
    note(j, p, kept);
    summarise(j, p, select(log_p, vec4(0.0), log_p < vec4(0.0)), kept);
}

// scale q . k of the row with 4 keys.
fn products(at: Head, j: vec4<u32>) -> vec4<f32> {
    let keys = vec4(at.k_at) + j * params.k.row;
    var s = vec4(0.0);
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let q = content(at.head, g) * params.kernel.q_scale;
        let k = keys + vec4(4u * g);
        let count = HEAD_DIM - 4u * g;
        s = vec4(dot_add(q, load_k(k.x, count), s.x), dot_add(q, load_k(k.y, count), s.y),
                 dot_add(q, load_k(k.z, count), s.z), dot_add(q, load_k(k.w, count), s.w));
    }
    return s;
}

fn dot_add(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

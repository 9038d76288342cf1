// What becomes of the derivatives of a tile where the gradient of a tensor of the score's terms is asked for:
//
//     d x = sum over the pairs that read x of ds_ij (d score(i, j) / d x)
//
// Each pair reads one element (elements.wgsl), or some rows of d elements (vectors.wgsl). The lanes leave the tile's derivatives,
// and what each pair reads, in workgroup memory; then every lane adds up what is its own of the tensor, whichever lane met the
// pair, in one order. Workgroups that run together write to different elements, or to different copies of the tensor.

struct TermParams {
    tile_step: u32,         // a work item's row tile is work / tile_step % row_tiles
    head_step: u32,         // its head and its batch item likewise
    batch_step: u32,
    batch: u32,             // B
    apart: u32,             // so many work items in a row read elements of their own
    copies: u32,            // the next so many have the next copy of the tensor
    len: u32,               // elements of the tensor
}

@group(0) @binding(BINDING_sums) var<storage, read_write> sums: array<f32>;     // [copies, len]

var<workgroup> pulls: array<f32, ROWS * KEYS>;
var<workgroup> elements: array<u32, ROWS * KEYS>;

const NO_ELEMENT = 0xffffffffu;

// Pairs that are added up first; what `TensorExplanation::chain` counts with.
const FEW_PAIRS = 32u;

// Where the workgroup's copy begins.
var<private> copy_at: u32;

fn item_of(work: u32) -> vec3<u32> {
    let p = params.term;
    copy_at = work / p.apart % p.copies * p.len;
    let head = nth_head(work / p.head_step % head_items());
    return vec3(work / p.batch_step % p.batch, head, work / p.tile_step % params.kernel.row_tiles);
}

fn take(at: Head, lane: Lane, tile: KeyTile, ds: Slopes) {
    keep_pulls(at, lane, 0u, ds.a);
    keep_pulls(at, lane, 4u, ds.b);
    keep_pulls(at, lane, 8u, ds.c);
    keep_pulls(at, lane, 12u, ds.d);
    for (var c = 0u; c < KEYS; c += 4u) {
        let key = tile.first + c;
        let j = vec4(key_at(at, key), key_at(at, key + 1u), key_at(at, key + 2u), key_at(at, key + 3u));
        for (var t = 0u; t < 4u; t++) {
            let read = score_element(pairs_of(at.batch, at.head, own[t], j));
            let to = (lane.r + t * LANES_R) * KEYS + c;
            elements[to] = read.x;
            elements[to + 1u] = read.y;
            elements[to + 2u] = read.z;
            elements[to + 3u] = read.w;
        }
    }
    workgroupBarrier();
    gather(at, lane, tile);
    workgroupBarrier();
}

// 4 columns from c on. Lanes past the last row repeat it: that counts once.
fn keep_pulls(at: Head, lane: Lane, c: u32, ds: mat4x4<f32>) {
    let rows = vec4(lane.r) + LANES_R * vec4(0u, 1u, 2u, 3u);
    let inside = vec4(at.first_row) + rows < vec4(at.end_row);
    keep_column(rows * KEYS + c, select(vec4(0.0), ds[0], inside));
    keep_column(rows * KEYS + c + 1u, select(vec4(0.0), ds[1], inside));
    keep_column(rows * KEYS + c + 2u, select(vec4(0.0), ds[2], inside));
    keep_column(rows * KEYS + c + 3u, select(vec4(0.0), ds[3], inside));
}

fn keep_column(to: vec4<u32>, ds: vec4<f32>) {
    pulls[to.x] = ds.x;
    pulls[to.y] = ds.y;
    pulls[to.z] = ds.z;
    pulls[to.w] = ds.w;
}

// The n-th pair of a tile, row and column: along diagonals, since many terms depend on the distance.
fn pair_of(n: u32) -> vec2<u32> {
    let c = n % KEYS;
    return vec2((n / KEYS + c) % ROWS, c);
}

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

// The derivatives of the lane's rows by all columns of the tile: on the direct tile.
fn take(at: Head, lane: Lane, tile: KeyTile, ds: Slopes) {
    keep_pulls(at, lane, vec4(0u, 1u, 2u, 3u), ds.a);
    keep_pulls(at, lane, vec4(4u, 5u, 6u, 7u), ds.b);
    keep_pulls(at, lane, vec4(8u, 9u, 10u, 11u), ds.c);
    keep_pulls(at, lane, vec4(12u, 13u, 14u, 15u), ds.d);
    for (var c = 0u; c < KEYS; c += 4u) { keep_elements(at, lane, tile, vec4(c) + vec4(0u, 1u, 2u, 3u)); }
    gather_all(at, lane, tile);
}

// The same by the lane's own 4 columns: on the staged tile.
fn take_own(at: Head, lane: Lane, tile: KeyTile, ds: mat4x4<f32>) {
    let c = vec4(lane.c) + LANES_C * vec4(0u, 1u, 2u, 3u);
    keep_pulls(at, lane, c, ds);
    keep_elements(at, lane, tile, c);
    gather_all(at, lane, tile);
}

fn gather_all(at: Head, lane: Lane, tile: KeyTile) {
    workgroupBarrier();
    gather(at, lane, tile);
    workgroupBarrier(); // where no products wait for each other, the next tile's derivatives come at once
}

// What the lane's rows read at 4 columns.
fn keep_elements(at: Head, lane: Lane, tile: KeyTile, c: vec4<u32>) {
    let j = columns_at(at, tile, c);
    for (var t = 0u; t < 4u; t++) {
        let read = score_element(pairs_of(at.batch, at.head, own[t], j));
        let row = (lane.r + t * LANES_R) * KEYS;
        elements[row + c.x] = read.x;
        elements[row + c.y] = read.y;
        elements[row + c.z] = read.z;
        elements[row + c.w] = read.w;
    }
}

// Of 4 columns. Lanes past the last row repeat it: that counts once.
fn keep_pulls(at: Head, lane: Lane, c: vec4<u32>, ds: mat4x4<f32>) {
    let rows = vec4(lane.r) + LANES_R * vec4(0u, 1u, 2u, 3u);
    let inside = vec4(at.first_row) + rows < vec4(at.end_row);
    keep_column(rows * KEYS + c.x, select(vec4(0.0), ds[0], inside));
    keep_column(rows * KEYS + c.y, select(vec4(0.0), ds[1], inside));
    keep_column(rows * KEYS + c.z, select(vec4(0.0), ds[2], inside));
    keep_column(rows * KEYS + c.w, select(vec4(0.0), ds[3], inside));
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

// What the tiles of attention and of its gradients on cooperative matrices share: which matrices a subgroup holds, and how their elements
// pass through workgroup memory, for matrices have none that a lane could name. A tile says how a piece joins a sum: `joined_piece`.

const S_COLUMNS = select(1u, 2u, S_WIDE);       // matrices of a subgroup along the tile's columns
const O_COLUMNS = select(2u, 4u, WIDE);         // and along those of the sums
const STEP = MATRIX / 4u;                       // vec4s of a matrix's row
const PATCH = 2u * MATRIX * STEP;               // of a subgroup in `products`, in vec4s: two matrices
const PIECES = PATCH / SUBGROUP;                // vec4s of a lane among them: 2 or 4

var<workgroup> products: array<vec4<f32>, PRODUCTS>;    // ROWS x S_PITCH; or patches of the sums

// Sums of a subgroup: 2 rows of matrices, by 2 or 4 (WIDE) of them.
var<private> o00: mat_c;
var<private> o01: mat_c;
var<private> o02: mat_c;
var<private> o03: mat_c;
var<private> o10: mat_c;
var<private> o11: mat_c;
var<private> o12: mat_c;
var<private> o13: mat_c;

// A lane's pieces of the patches of all subgroups.
struct Sums { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

// Where a subgroup works: its rows begin at `row`, its keys and its columns of the sums at these, its patch of `products`.
struct Share { row: u32, key: u32, column: u32, patch_at: u32 }

// SUBGROUP is the largest that the device may use. Where the compiler takes a smaller one, neighbours do the same work,
// which is slow but right.
fn share_of(lane: Lane) -> Share {
    let subgroup = lane.index / SUBGROUP;
    let column = subgroup % SUBGROUPS_C;
    return Share(subgroup / SUBGROUPS_C * 2u * MATRIX, column * S_COLUMNS * MATRIX, column * O_COLUMNS * MATRIX,
                 subgroup * PATCH);
}

// A subgroup's products of rows and columns of the tile.
fn lay_products(share: Share, s00: mat_c, s01: mat_c, s10: mat_c, s11: mat_c) {
    let to = share.row * S_PITCH + share.key / 4u;
    coopStoreT(s00, &products[to], S_PITCH);
    coopStoreT(s10, &products[to + MATRIX * S_PITCH], S_PITCH);
    if (S_WIDE) {
        coopStoreT(s01, &products[to + STEP], S_PITCH);
        coopStoreT(s11, &products[to + MATRIX * S_PITCH + STEP], S_PITCH);
    }
}

fn forget_products() {
    var nothing: mat_c;
    o00 = nothing;
    o01 = nothing;
    o10 = nothing;
    o11 = nothing;
    if (WIDE) {
        o02 = nothing;
        o03 = nothing;
        o12 = nothing;
        o13 = nothing;
    }
}

// Two matrices, one below the other: 2 MATRIX rows of MATRIX columns.
fn write_patch(share: Share, upper: mat_c, lower: mat_c) {
    workgroupBarrier(); // all lanes have read what was here
    coopStoreT(upper, &products[share.patch_at], STEP);
    coopStoreT(lower, &products[share.patch_at + MATRIX * STEP], STEP);
    workgroupBarrier();
}

// The row of the tile that a vec4 of the patches belongs to.
fn row_of_piece(e: u32) -> u32 { return e / PATCH / SUBGROUPS_C * 2u * MATRIX + e % PATCH / STEP; }

// And its group of 4 columns of the sums, where it is of a subgroup's column `matrix` of matrices.
fn group_of_piece(e: u32, matrix: u32) -> u32 { return (e / PATCH % SUBGROUPS_C * O_COLUMNS + matrix) * STEP + e % STEP; }

// The patches joined to the lane's own sums.
fn joined(lane: Lane, sums: Sums) -> Sums {
    var all = sums;
    all.a = joined_piece(lane.index, sums.a);
    all.b = joined_piece(lane.index + LANES, sums.b);
    if (PIECES == 4u) {
        all.c = joined_piece(lane.index + 2u * LANES, sums.c);
        all.d = joined_piece(lane.index + 3u * LANES, sums.d);
    }
    return all;
}

// To the nearest number that f16 has. Not by a conversion there and back, which compilers take for nothing at all.
fn eleven_bits(x: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>((bitcast<vec4<u32>>(x) + vec4(0x1000u)) & vec4(0xffffe000u));
}

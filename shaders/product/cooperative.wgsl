// Products of f16 in cooperative matrices with f32 sums, on the units that GPUs have for them.
//
// A workgroup walks k in chunks of DEPTH, which all lanes stage as f16, as they are stored. A subgroup holds 2 by 2 or
// 4 by 4 (WIDE) matrices of C over the whole walk; each is a variable of its own, since an array indexed by a loop leaves the
// registers. Matrices have no elements that a lane could name, so that for the end each passes through workgroup memory.

const SIDE = select(2u, 4u, WIDE) * MATRIX;         // rows, and columns, of a subgroup
const SUBGROUPS = LANES / SUBGROUP;
const STEP = MATRIX / 4u;                           // vec4s of a matrix's row
const PATCH = MATRIX * STEP;                        // of a subgroup in `patches`

// All of it in vec4s, pitches too.
var<workgroup> staged_a: array<vec4<f16>, A_LEN>;   // as A lies: ROWS x A_PITCH, or DEPTH x A_PITCH
var<workgroup> staged_b: array<vec4<f16>, B_LEN>;   // as B lies: DEPTH x B_PITCH, or COLUMNS x B_PITCH
var<workgroup> patches: array<vec4<f32>, SUBGROUPS * PATCH>;

var<private> c00: mat_c;
var<private> c01: mat_c;
var<private> c02: mat_c;
var<private> c03: mat_c;
var<private> c10: mat_c;
var<private> c11: mat_c;
var<private> c12: mat_c;
var<private> c13: mat_c;
var<private> c20: mat_c;
var<private> c21: mat_c;
var<private> c22: mat_c;
var<private> c23: mat_c;
var<private> c30: mat_c;
var<private> c31: mat_c;
var<private> c32: mat_c;
var<private> c33: mat_c;

// Sums in the order of k from matrix to matrix; within one, in the device's.
//
// SUBGROUP is the largest that the device may use. Where the compiler takes a smaller one, neighbours do the same work,
// which is slow but right.
fn multiply(tile: Tile, index: u32, a_at: u32, b_at: u32) {
    let subgroup = index / SUBGROUP;
    let row = subgroup / SUBGROUPS_C * SIDE;
    let column = subgroup % SUBGROUPS_C * SIDE;
    for (var k = 0u; k < params.inner; k += DEPTH) {
        workgroupBarrier(); // the last chunk is read to its end
        stage_a(tile, index, a_at, k);
        stage_b(tile, index, b_at, k);
        workgroupBarrier();
        for (var step = 0u; step < DEPTH; step += MATRIX) { add_products(row, column, step); }
    }
    finish(tile, index, subgroup * PATCH);
}

// Of MATRIX k, from `k` of the chunk on.
fn add_products(row: u32, column: u32, k: u32) {
    let from_a = select(k * A_PITCH + row / 4u, row * A_PITCH + k / 4u, A_BY_ROWS);
    let next_a = select(STEP, MATRIX * A_PITCH, A_BY_ROWS);
    let from_b = select(column * B_PITCH + k / 4u, k * B_PITCH + column / 4u, B_IN_OUT);
    let next_b = select(MATRIX * B_PITCH, STEP, B_IN_OUT);
    let a0 = matrix_of_a(from_a);
    let a1 = matrix_of_a(from_a + next_a);
    let b0 = matrix_of_b(from_b);
    let b1 = matrix_of_b(from_b + next_b);
    c00 = coopMultiplyAdd(a0, b0, c00);
    c01 = coopMultiplyAdd(a0, b1, c01);
    c10 = coopMultiplyAdd(a1, b0, c10);
    c11 = coopMultiplyAdd(a1, b1, c11);
    if (WIDE) {
        let a2 = matrix_of_a(from_a + 2u * next_a);
        let a3 = matrix_of_a(from_a + 3u * next_a);
        let b2 = matrix_of_b(from_b + 2u * next_b);
        let b3 = matrix_of_b(from_b + 3u * next_b);
        c02 = coopMultiplyAdd(a0, b2, c02);
        c03 = coopMultiplyAdd(a0, b3, c03);
        c12 = coopMultiplyAdd(a1, b2, c12);
        c13 = coopMultiplyAdd(a1, b3, c13);
        c20 = coopMultiplyAdd(a2, b0, c20);
        c21 = coopMultiplyAdd(a2, b1, c21);
        c22 = coopMultiplyAdd(a2, b2, c22);
        c23 = coopMultiplyAdd(a2, b3, c23);
        c30 = coopMultiplyAdd(a3, b0, c30);
        c31 = coopMultiplyAdd(a3, b1, c31);
        c32 = coopMultiplyAdd(a3, b2, c32);
        c33 = coopMultiplyAdd(a3, b3, c33);
    }
}

// Column-major, where a column of A, one k, lies as a row.
fn matrix_of_a(at: u32) -> mat_a {
    if (A_BY_ROWS) { return coopLoadT<mat_a>(&staged_a[at], A_PITCH); }
    return coopLoad<mat_a>(&staged_a[at], A_PITCH);
}

// Column-major, where a column of B lies as a row of k.
fn matrix_of_b(at: u32) -> mat_b {
    if (B_IN_OUT) { return coopLoadT<mat_b>(&staged_b[at], B_PITCH); }
    return coopLoad<mat_b>(&staged_b[at], B_PITCH);
}

// --- staging: workgroup memory filled by all lanes together; what lies outside is 0 ---

fn stage_a(tile: Tile, index: u32, a_at: u32, first_k: u32) {
    for (var e = index; e < ROWS * DEPTH / 4u; e += LANES) {
        var x = vec4(0.0);
        var to = 0u;
        if (A_BY_ROWS) {
            let r = e / (DEPTH / 4u);
            let k = 4u * (e % (DEPTH / 4u));
            if (tile.first_row + r < params.rows && first_k + k < params.inner) {
                x = load_a(a_at + r * params.a_row + first_k + k, params.inner - first_k - k);
            }
            to = r * A_PITCH + k / 4u;
        } else {
            let k = e / (ROWS / 4u);
            let r = 4u * (e % (ROWS / 4u));
            if (tile.first_row + r < params.rows && first_k + k < params.inner) {
                x = load_a(a_at + (first_k + k) * params.a_row + r, params.rows - tile.first_row - r);
            }
            to = k * A_PITCH + r / 4u;
        }
        staged_a[to] = vec4<f16>(x);
    }
}

fn stage_b(tile: Tile, index: u32, b_at: u32, first_k: u32) {
    for (var e = index; e < COLUMNS * DEPTH / 4u; e += LANES) {
        var x = vec4(0.0);
        var to = 0u;
        if (B_IN_OUT) {
            let k = e / (COLUMNS / 4u);
            let c = 4u * (e % (COLUMNS / 4u));
            let column = tile.first_column + c;
            if (first_k + k < params.inner && column < params.columns) {
                x = b_along_columns(b_at, first_k + k, column, params.columns - column);
            }
            to = k * B_PITCH + c / 4u;
        } else {
            let c = e / (DEPTH / 4u);
            let k = 4u * (e % (DEPTH / 4u));
            if (first_k + k < params.inner && tile.first_column + c < params.columns) {
                x = b_along_k(b_at, tile.first_column + c, first_k + k, params.inner - first_k - k);
            }
            to = c * B_PITCH + k / 4u;
        }
        staged_b[to] = vec4<f16>(x);
    }
}

// --- the end: one matrix of each subgroup at a time ---

fn finish(tile: Tile, index: u32, patch_at: u32) {
    let matrices = select(4u, 16u, WIDE);
    for (var n = 0u; n < matrices; n++) {
        workgroupBarrier(); // the last patches are read to their end
        switch n {
            case 0u: { coopStoreT(c00, &patches[patch_at], STEP); }
            case 1u: { coopStoreT(c01, &patches[patch_at], STEP); }
            case 2u: { coopStoreT(c10, &patches[patch_at], STEP); }
            case 3u: { coopStoreT(c11, &patches[patch_at], STEP); }
            case 4u: { coopStoreT(c02, &patches[patch_at], STEP); }
            case 5u: { coopStoreT(c03, &patches[patch_at], STEP); }
            case 6u: { coopStoreT(c12, &patches[patch_at], STEP); }
            case 7u: { coopStoreT(c13, &patches[patch_at], STEP); }
            case 8u: { coopStoreT(c20, &patches[patch_at], STEP); }
            case 9u: { coopStoreT(c21, &patches[patch_at], STEP); }
            case 10u: { coopStoreT(c30, &patches[patch_at], STEP); }
            case 11u: { coopStoreT(c31, &patches[patch_at], STEP); }
            case 12u: { coopStoreT(c22, &patches[patch_at], STEP); }
            case 13u: { coopStoreT(c23, &patches[patch_at], STEP); }
            case 14u: { coopStoreT(c32, &patches[patch_at], STEP); }
            default: { coopStoreT(c33, &patches[patch_at], STEP); }
        }
        workgroupBarrier();
        // By quarters of 2 by 2 matrices.
        write_patches(tile, index, n / 8u * 2u + n % 4u / 2u, n / 4u % 2u * 2u + n % 2u);
    }
}

// The matrix of each subgroup in this row and column of its own.
fn write_patches(tile: Tile, index: u32, matrix_row: u32, matrix_column: u32) {
    for (var e = index; e < SUBGROUPS * PATCH; e += LANES) {
        let subgroup = e / PATCH;
        let within = e % PATCH;
        let r = tile.first_row + subgroup / SUBGROUPS_C * SIDE + matrix_row * MATRIX + within / STEP;
        let column = tile.first_column + subgroup % SUBGROUPS_C * SIDE + matrix_column * MATRIX + 4u * (within % STEP);
        if (r < params.rows) { write_group(tile, r, column, patches[e]); }
    }
}

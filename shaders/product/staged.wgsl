// Register-tiled, operands in workgroup memory: for GPUs.
//
// A workgroup walks k in chunks of 4 CHUNK. A lane holds 4 or 8 (TALL) rows (lane.r + n LANES_R) by 1 or 2 (WIDE) groups
// of 4 columns (groups lane.c and lane.c + LANES_C): quads of 4 rows by 4 columns, in named vectors, since an array
// indexed by a loop leaves the registers. Everything is staged as vectors of 4: A along k; B along n where it is stored
// [in, out], along k where it is stored [out, in]. An A that is stored [inner, rows] is transposed on the way, 4 by 4. A lane then reads 4 vectors of A and 4 of B for 64 multiplications, and
// neither needs transposing. Odd pitches, and columns dealt out so that neighbouring lanes read neighbouring rows, keep
// workgroup memory free of bank conflicts.

// A's chunk from 0 on, B's from B_AT on.
var<workgroup> arena: array<vec4<f32>, ARENA>;

// 4 rows of 4: of C, of A (rows by k), of B (k by columns, or columns by k).
struct Quad { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

var<private> c00: Quad; // the first 4 rows, the first group of columns
var<private> c01: Quad; // the second group, where WIDE
var<private> c10: Quad; // the last 4 rows, where TALL
var<private> c11: Quad;

// Where a lane works.
struct Lane { index: u32, r: u32, c: u32 }

// Sums in the order of k.
fn multiply(tile: Tile, index: u32, a_at: u32, b_at: u32) {
    let lane = Lane(index, index / LANES_C, index % LANES_C);
    for (var k = 0u; k < params.inner; k += 4u * CHUNK) {
        workgroupBarrier(); // the last chunk is read to its end
        stage_a(tile, lane, a_at, k);
        stage_b(tile, lane, b_at, k);
        workgroupBarrier();
        for (var g = 0u; g < CHUNK; g++) {
            let a_from = lane.r * A_PITCH + g;
            let b_from = B_AT + lane.c * B_LANE + g * B_GROUP;
            let a0 = quad(a_from, LANES_R * A_PITCH);
            let b0 = quad(b_from, B_STEP);
            c00 = multiplied(a0, b0, c00);
            if (TALL) {
                let a1 = quad(a_from + 4u * LANES_R * A_PITCH, LANES_R * A_PITCH);
                c10 = multiplied(a1, b0, c10);
                if (WIDE) { c11 = multiplied(a1, quad(b_from + LANES_C * B_LANE, B_STEP), c11); }
            }
            if (WIDE) { c01 = multiplied(a0, quad(b_from + LANES_C * B_LANE, B_STEP), c01); }
        }
    }
    finish(tile, lane);
}

fn quad(start: u32, step: u32) -> Quad {
    return Quad(arena[start], arena[start + step], arena[start + 2u * step], arena[start + 3u * step]);
}

fn multiplied(a: Quad, b: Quad, c: Quad) -> Quad {
    return Quad(row(a.a, b, c.a), row(a.b, b, c.b), row(a.c, b, c.c), row(a.d, b, c.d));
}

// 4 k of one row of A by 4 columns, added to `sum` in the order of k.
fn row(a: vec4<f32>, b: Quad, sum: vec4<f32>) -> vec4<f32> {
    if (B_IN_OUT) {
        return fma(vec4(a.w), b.d, fma(vec4(a.z), b.c, fma(vec4(a.y), b.b, fma(vec4(a.x), b.a, sum))));
    }
    return vec4(dot_add(a, b.a, sum.x), dot_add(a, b.b, sum.y), dot_add(a, b.c, sum.z), dot_add(a, b.d, sum.w));
}

fn dot_add(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

// --- staging: workgroup memory filled by all lanes together; what lies outside is 0 ---

fn stage_a(tile: Tile, lane: Lane, a_at: u32, first_k: u32) {
    if (!A_BY_ROWS) {
        stage_transposed(tile, lane, a_at, first_k);
        return;
    }
    for (var e = lane.index; e < ROWS * CHUNK; e += LANES) {
        let r = e / CHUNK;
        let k = first_k + 4u * (e % CHUNK);
        var value = vec4(0.0);
        if (tile.first_row + r < params.rows && k < params.inner) {
            value = load_a(a_at + r * params.a_row + k, params.inner - k);
        }
        arena[r * A_PITCH + e % CHUNK] = value;
    }
}

// 4 k by 4 rows at a time; neighbouring lanes read neighbouring rows.
fn stage_transposed(tile: Tile, lane: Lane, a_at: u32, first_k: u32) {
    for (var e = lane.index; e < ROWS / 4u * CHUNK; e += LANES) {
        let r = 4u * (e % (ROWS / 4u));
        let g = e / (ROWS / 4u);
        let k = first_k + 4u * g;
        let rows = transpose(mat4x4(rows_of_a(tile, a_at, r, k), rows_of_a(tile, a_at, r, k + 1u),
                                    rows_of_a(tile, a_at, r, k + 2u), rows_of_a(tile, a_at, r, k + 3u)));
        arena[r * A_PITCH + g] = rows[0];
        arena[(r + 1u) * A_PITCH + g] = rows[1];
        arena[(r + 2u) * A_PITCH + g] = rows[2];
        arena[(r + 3u) * A_PITCH + g] = rows[3];
    }
}

// One k of 4 rows.
fn rows_of_a(tile: Tile, a_at: u32, r: u32, k: u32) -> vec4<f32> {
    if (tile.first_row + r >= params.rows || k >= params.inner) { return vec4(0.0); }
    return load_a(a_at + k * params.a_row + r, params.rows - tile.first_row - r);
}

fn stage_b(tile: Tile, lane: Lane, b_at: u32, first_k: u32) {
    for (var e = lane.index; e < 4u * CHUNK * COLUMN_GROUPS; e += LANES) {
        var value = vec4(0.0);
        if (B_IN_OUT) {
            let k = first_k + e / COLUMN_GROUPS;
            let column = tile.first_column + 4u * (e % COLUMN_GROUPS);
            if (k < params.inner && column < params.columns) {
                value = b_along_columns(b_at, k, column, params.columns - column);
            }
            arena[B_AT + e] = value;
        } else {
            // Row `slot` is column slot / COLUMN_GROUPS of its group: a lane's 4 columns lie B_STEP apart.
            let slot = e / CHUNK;
            let column = tile.first_column + 4u * (slot % COLUMN_GROUPS) + slot / COLUMN_GROUPS;
            let k = first_k + 4u * (e % CHUNK);
            if (k < params.inner && column < params.columns) {
                value = b_along_k(b_at, column, k, params.inner - k);
            }
            arena[B_AT + slot * B_LANE + e % CHUNK] = value;
        }
    }
}

// --- the end ---

fn finish(tile: Tile, lane: Lane) {
    for (var n = 0u; n < select(4u, 8u, TALL); n++) {
        let r = tile.first_row + lane.r + n * LANES_R;
        if (r >= params.rows) { break; }
        write_group(tile, r, tile.first_column + 4u * lane.c, sum_of(n));
        if (WIDE) { write_group(tile, r, tile.first_column + 4u * (lane.c + LANES_C), wide_sum_of(n)); }
    }
}

// Row n of the lane's first group of columns.
fn sum_of(n: u32) -> vec4<f32> {
    switch n {
        case 0u: { return c00.a; }
        case 1u: { return c00.b; }
        case 2u: { return c00.c; }
        case 3u: { return c00.d; }
        case 4u: { return c10.a; }
        case 5u: { return c10.b; }
        case 6u: { return c10.c; }
        default: { return c10.d; }
    }
}

// Row n of its second.
fn wide_sum_of(n: u32) -> vec4<f32> {
    switch n {
        case 0u: { return c01.a; }
        case 1u: { return c01.b; }
        case 2u: { return c01.c; }
        case 3u: { return c01.d; }
        case 4u: { return c11.a; }
        case 5u: { return c11.b; }
        case 6u: { return c11.c; }
        default: { return c11.d; }
    }
}

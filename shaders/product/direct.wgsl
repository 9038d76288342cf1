// Each lane works alone, without workgroup memory and barriers: what a CPU wants, where both are dear.
//
// A CPU runs the lanes of a workgroup as the elements of its vectors. Lanes differ in their rows only, so that every load
// of B has one address for all lanes. A lane holds 4 rows (index + n LANES, or neighbours where A is stored [inner, rows]) by all columns of the tile, and walks k in
// chunks of 4 CHUNK: it reads its part of A once a chunk, then takes 16 columns at a time. Its parts of A and C are arrays
// that loops index, by the same index in all lanes: memory, but a CPU's nearest.

// The chunk's groups of 4 k: the columns are k, the rows are the lane's 4 rows.
var<private> own_a: array<mat4x4<f32>, CHUNK>;
// By groups of 4 columns of C, and again the lane's rows.
var<private> own_c: array<mat4x4<f32>, COLUMN_GROUPS>;

// Sums in the order of k.
fn multiply(tile: Tile, index: u32, a_at: u32, b_at: u32) {
    let groups = min(COLUMN_GROUPS, (params.columns - tile.first_column + 3u) / 4u);
    for (var g = 0u; g < COLUMN_GROUPS; g++) { own_c[g] = mat4x4<f32>(); }
    for (var k = 0u; k < params.inner; k += 4u * CHUNK) {
        let chunk = min(CHUNK, (params.inner - k + 3u) / 4u);
        for (var g = 0u; g < chunk; g++) {
            own_a[g] = of_rows(tile, a_at, index, k + 4u * g);
        }
        for (var c = 0u; c < groups; c += 4u) {
            var c0 = own_c[c];
            var c1 = own_c[c + 1u];
            var c2 = own_c[c + 2u];
            var c3 = own_c[c + 3u];
            let column = tile.first_column + 4u * c;
            for (var g = 0u; g < chunk; g++) {
                let a_g = own_a[g];
                c0 = with_products(c0, a_g, of_b(b_at, k + 4u * g, column));
                c1 = with_products(c1, a_g, of_b(b_at, k + 4u * g, column + 4u));
                c2 = with_products(c2, a_g, of_b(b_at, k + 4u * g, column + 8u));
                c3 = with_products(c3, a_g, of_b(b_at, k + 4u * g, column + 12u));
            }
            own_c[c] = c0;
            own_c[c + 1u] = c1;
            own_c[c + 2u] = c2;
            own_c[c + 3u] = c3;
        }
    }
    for (var g = 0u; g < groups; g++) {
        let rows = transpose(own_c[g]);
        let column = tile.first_column + 4u * g;
        write_row(tile, own_row(index, 0u), column, rows[0]);
        write_row(tile, own_row(index, 1u), column, rows[1]);
        write_row(tile, own_row(index, 2u), column, rows[2]);
        write_row(tile, own_row(index, 3u), column, rows[3]);
    }
}

// Row n of the lane.
fn own_row(index: u32, n: u32) -> u32 { return select(4u * index + n, index + n * LANES, A_BY_ROWS); }

// 4 k (as columns) of the lane's rows of A.
fn of_rows(tile: Tile, a_at: u32, index: u32, k: u32) -> mat4x4<f32> {
    if (A_BY_ROWS) {
        return transpose(mat4x4(of_a(tile, a_at, index, k), of_a(tile, a_at, index + LANES, k),
                                of_a(tile, a_at, index + 2u * LANES, k), of_a(tile, a_at, index + 3u * LANES, k)));
    }
    return mat4x4(rows_of_a(tile, a_at, 4u * index, k), rows_of_a(tile, a_at, 4u * index, k + 1u),
                  rows_of_a(tile, a_at, 4u * index, k + 2u), rows_of_a(tile, a_at, 4u * index, k + 3u));
}

// One k of 4 rows of A; 0 past the last k, and of rows that are not there.
fn rows_of_a(tile: Tile, a_at: u32, r: u32, k: u32) -> vec4<f32> {
    if (tile.first_row + r >= params.rows || k >= params.inner) { return vec4(0.0); }
    return load_a(a_at + k * params.a_row + r, params.rows - tile.first_row - r);
}

// 4 k of a row of A; 0 past the last k, and of rows that are not there.
fn of_a(tile: Tile, a_at: u32, r: u32, k: u32) -> vec4<f32> {
    if (tile.first_row + r >= params.rows) { return vec4(0.0); }
    return load_a(a_at + r * params.a_row + k, params.inner - k);
}

// 4 columns of B (as columns) by 4 k. What is past the last column is never written, so it may be that column again; past
// the last k it must be 0, as A's is there, for B may hold infinities.
fn of_b(b_at: u32, k: u32, column: u32) -> mat4x4<f32> {
    if (B_IN_OUT) {
        let last = min(column, (params.columns - 1u) / 4u * 4u);
        return transpose(mat4x4(row_of_b(b_at, k, last), row_of_b(b_at, k + 1u, last), row_of_b(b_at, k + 2u, last),
                                row_of_b(b_at, k + 3u, last)));
    }
    return mat4x4(column_of_b(b_at, k, column), column_of_b(b_at, k, column + 1u), column_of_b(b_at, k, column + 2u),
                  column_of_b(b_at, k, column + 3u));
}

fn row_of_b(b_at: u32, k: u32, column: u32) -> vec4<f32> {
    if (!WHOLE_K && k >= params.inner) { return vec4(0.0); }
    return b_along_columns(b_at, k, column, params.columns - column);
}

fn column_of_b(b_at: u32, k: u32, column: u32) -> vec4<f32> {
    return b_along_k(b_at, min(column, params.columns - 1u), k, params.inner - k);
}

fn with_products(c: mat4x4<f32>, a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4(product(c[0], a, b[0]), product(c[1], a, b[1]), product(c[2], a, b[2]), product(c[3], a, b[3]));
}

fn product(c: vec4<f32>, a: mat4x4<f32>, b: vec4<f32>) -> vec4<f32> {
    return fma(a[3], vec4(b.w), fma(a[2], vec4(b.z), fma(a[1], vec4(b.y), fma(a[0], vec4(b.x), c))));
}

fn write_row(tile: Tile, r: u32, column: u32, sum: vec4<f32>) {
    if (tile.first_row + r < params.rows) { write_group(tile, tile.first_row + r, column, sum); }
}

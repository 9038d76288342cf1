// Few rows, as in decoding: what counts is how fast B is read, and it is read once.
//
// Lanes lie along k, so that neighbours read neighbouring groups of a column of B, which is stored [out, in]. A lane keeps its part of
// the sums of all rows and columns of the tile, so that what it reads of A serves all columns; the parts are added up at the end.

// 4 k of the tile's rows.
var<private> own_a: array<vec4<f32>, ROWS>;
// By groups of 4 columns, and within them by rows.
var<private> own: array<vec4<f32>, SUMS>;
var<workgroup> parts: array<vec4<f32>, PARTS>;

fn multiply(tile: Tile, index: u32, a_at: u32, b_at: u32) {
    for (var n = 0u; n < SUMS; n++) { own[n] = vec4(0.0); }
    for (var k = 4u * index; k < params.inner; k += 4u * LANES) {
        for (var r = 0u; r < ROWS; r++) {
            own_a[r] = load_a(a_at + min(r, params.rows - 1u - tile.first_row) * params.a_row + k, params.inner - k);
        }
        for (var g = 0u; g < COLUMN_GROUPS; g++) {
            let column = tile.first_column + 4u * g;
            let b = mat4x4(column_of_b(b_at, k, column), column_of_b(b_at, k, column + 1u),
                           column_of_b(b_at, k, column + 2u), column_of_b(b_at, k, column + 3u));
            for (var r = 0u; r < ROWS; r++) {
                own[g * ROWS + r] = with_products(own[g * ROWS + r], own_a[r], b);
            }
        }
    }
    for (var n = 0u; n < SUMS; n++) { parts[n * LANES + index] = own[n]; }
    workgroupBarrier();
    for (var n = index; n < SUMS; n += LANES) {
        let r = tile.first_row + n % ROWS;
        if (r < params.rows) { write_group(tile, r, tile.first_column + 4u * (n / ROWS), total(n)); }
    }
}

// 4 k of a column; past the last column that column again.
fn column_of_b(b_at: u32, k: u32, column: u32) -> vec4<f32> {
    return b_along_k(b_at, min(column, params.columns - 1u), k, params.inner - k);
}

// 4 k of a row of A by 4 columns of B.
fn with_products(sum: vec4<f32>, a: vec4<f32>, b: mat4x4<f32>) -> vec4<f32> {
    let rows = transpose(b);
    return fma(vec4(a.w), rows[3], fma(vec4(a.z), rows[2], fma(vec4(a.y), rows[1], fma(vec4(a.x), rows[0], sum))));
}

// All lanes' parts of a sum, in the order of the lanes.
fn total(n: u32) -> vec4<f32> {
    var sum = parts[n * LANES];
    for (var lane = 1u; lane < LANES; lane++) { sum += parts[n * LANES + lane]; }
    return sum;
}

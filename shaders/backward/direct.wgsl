// Each lane works alone, on 4 rows by 16 columns, as in tile/direct.wgsl: what a CPU wants. It holds its rows and their sums whole.

const LANES_PER_ROW = 1u;

// By groups of 4 elements of a row: the columns are the elements, the rows are the lane's 4 rows.
var<private> own_heads: array<mat4x4<f32>, HEAD_GROUPS>;        // with the scale
var<private> own_values: array<mat4x4<f32>, VALUE_GROUPS>;
var<private> head_sums: array<mat4x4<f32>, HEAD_GROUPS>;
var<private> value_sums: array<mat4x4<f32>, VALUE_GROUPS>;

// The last rows and the first by turns: a software adapter gives each core one stretch of the work, and under a causal mask
// every stretch then has as much to do.
fn row_tile_at(place: u32) -> u32 { return select(params.kernel.row_tiles - 1u - place / 2u, place / 2u, place % 2u == 1u); }

fn begin(at: Head, lane: Lane) {
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        own_heads[g] = transpose(mat4x4(own_head(at, own.x, g), own_head(at, own.y, g), own_head(at, own.z, g), own_head(at, own.w, g)));
        if (HAS_HEAD) { head_sums[g] = mat4x4<f32>(); }
    }
    for (var g = 0u; g < VALUE_GROUPS; g++) {
        if (HAS_SLOPES) {
            own_values[g] = transpose(mat4x4(own_value(at, own.x, g), own_value(at, own.y, g), own_value(at, own.z, g), own_value(at, own.w, g)));
        }
        if (HAS_VALUE) { value_sums[g] = mat4x4<f32>(); }
    }
}

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    if (is_beyond(tile)) { return; }
    let h0 = heads_at(at, tile, 0u);
    let h1 = heads_at(at, tile, 4u);
    let h2 = heads_at(at, tile, 8u);
    let h3 = heads_at(at, tile, 12u);
    var x0: mat4x4<f32>;
    var x1: mat4x4<f32>;
    var x2: mat4x4<f32>;
    var x3: mat4x4<f32>;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let q = own_heads[g];
        x0 = with_products(x0, q, heads(at, h0, g));
        x1 = with_products(x1, q, heads(at, h1, g));
        x2 = with_products(x2, q, heads(at, h2, g));
        x3 = with_products(x3, q, heads(at, h3, g));
    }
    let v0 = values_at(at, tile, 0u);
    let v1 = values_at(at, tile, 4u);
    let v2 = values_at(at, tile, 8u);
    let v3 = values_at(at, tile, 12u);
    var y0: mat4x4<f32>;
    var y1: mat4x4<f32>;
    var y2: mat4x4<f32>;
    var y3: mat4x4<f32>;
    if (HAS_SLOPES) {
        for (var g = 0u; g < VALUE_GROUPS; g++) {
            let d = own_values[g];
            y0 = with_products(y0, d, values(v0, g));
            y1 = with_products(y1, d, values(v1, g));
            y2 = with_products(y2, d, values(v2, g));
            y3 = with_products(y3, d, values(v3, g));
        }
    }
    relate(at, tile, own);
    let c = vec4(0u, 1u, 2u, 3u);
    let w0 = weights_of(at, lane, tile, c, with_rows(x0, 0u), y0);
    let w1 = weights_of(at, lane, tile, c + vec4(4u), with_rows(x1, 4u), y1);
    let w2 = weights_of(at, lane, tile, c + vec4(8u), with_rows(x2, 8u), y2);
    let w3 = weights_of(at, lane, tile, c + vec4(12u), with_rows(x3, 12u), y3);
    // A sum of the tile by itself, then added: a chain of additions as long as the row would lose digits.
    if (HAS_VALUE) {
        for (var g = 0u; g < VALUE_GROUPS; g++) {
            var x = mat4x4<f32>();
            x = with_weighed(x, w0.p, tile, values(v0, g));
            x = with_weighed(x, w1.p, tile, values(v1, g));
            x = with_weighed(x, w2.p, tile, values(v2, g));
            x = with_weighed(x, w3.p, tile, values(v3, g));
            value_sums[g] += x;
        }
    }
    if (HAS_HEAD) {
        if (ROWS_ARE_QUERIES) {
            weigh_rows(w0.ds, 0u);
            weigh_rows(w1.ds, 4u);
            weigh_rows(w2.ds, 8u);
            weigh_rows(w3.ds, 12u);
        }
        for (var g = 0u; g < HEAD_GROUPS; g++) {
            var x = mat4x4<f32>();
            x = with_weighed(x, w0.ds, tile, heads(at, h0, g));
            x = with_weighed(x, w1.ds, tile, heads(at, h1, g));
            x = with_weighed(x, w2.ds, tile, heads(at, h2, g));
            x = with_weighed(x, w3.ds, tile, heads(at, h3, g));
            if (ROWS_ARE_QUERIES) { x = with_weighed_rows(x, at, tile, own, g); }
            head_sums[g] += x;
        }
    }
    take(at, lane, tile, Slopes(w0.ds, w1.ds, w2.ds, w3.ds));
}

fn end(at: Head, lane: Lane) {
    let row = at.first_row + lane.r;
    if (HAS_HEAD) {
        for (var g = 0u; g < HEAD_GROUPS; g++) {
            let x = transpose(head_sums[g]);
            write_head(at, row, g, x[0]);
            write_head(at, row + LANES_R, g, x[1]);
            write_head(at, row + 2u * LANES_R, g, x[2]);
            write_head(at, row + 3u * LANES_R, g, x[3]);
        }
    }
    if (HAS_VALUE) {
        for (var g = 0u; g < VALUE_GROUPS; g++) {
            let x = transpose(value_sums[g]);
            write_value(at, row, g, x[0]);
            write_value(at, row + LANES_R, g, x[1]);
            write_value(at, row + 2u * LANES_R, g, x[2]);
            write_value(at, row + 3u * LANES_R, g, x[3]);
        }
    }
}

// Where the elements of 4 columns of the tile, from c on, begin.
fn heads_at(at: Head, tile: KeyTile, c: u32) -> vec4<u32> {
    let column = tile.first + c;
    return vec4(column_head_at(at, column), column_head_at(at, column + 1u), column_head_at(at, column + 2u), column_head_at(at, column + 3u));
}

fn values_at(at: Head, tile: KeyTile, c: u32) -> vec4<u32> {
    let column = tile.first + c;
    return vec4(column_value_at(at, column), column_value_at(at, column + 1u), column_value_at(at, column + 2u), column_value_at(at, column + 3u));
}

// A group of 4 elements of each of 4 columns.
fn heads(at: Head, begin_at: vec4<u32>, g: u32) -> mat4x4<f32> {
    return mat4x4(column_head(at, begin_at.x, g), column_head(at, begin_at.y, g), column_head(at, begin_at.z, g), column_head(at, begin_at.w, g));
}

fn values(begin_at: vec4<u32>, g: u32) -> mat4x4<f32> {
    return mat4x4(column_value(begin_at.x, g), column_value(begin_at.y, g), column_value(begin_at.z, g), column_value(begin_at.w, g));
}

// --- small algebra: columns of a matrix are columns of the tile, rows are the lane's 4 rows ---

// Products of the lane's rows with 4 columns, with those of one more group of elements.
fn with_products(x: mat4x4<f32>, rows: mat4x4<f32>, c: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4(product(x[0], rows, c[0]), product(x[1], rows, c[1]), product(x[2], rows, c[2]), product(x[3], rows, c[3]));
}

fn product(x: vec4<f32>, rows: mat4x4<f32>, c: vec4<f32>) -> vec4<f32> {
    return fma(rows[3], vec4(c.w), fma(rows[2], vec4(c.z), fma(rows[1], vec4(c.y), fma(rows[0], vec4(c.x), x))));
}

// 4 columns weighed for each of the lane's rows, added to x; the columns of x are elements.
fn with_weighed(x: mat4x4<f32>, w: mat4x4<f32>, tile: KeyTile, columns: mat4x4<f32>) -> mat4x4<f32> {
    var c = columns;
    // Rows that leave a column out weigh it by 0, and 0 x NaN is not 0: there, what is not finite becomes 0. Rows that see it
    // have a weight that is NaN, by the query's record. One branch for all four: it costs as much as the sums.
    if ((is_masked(tile) || SCORES_MAY_DROP) && some_not_finite(c)) { c = mat4x4(finite(c[0]), finite(c[1]), finite(c[2]), finite(c[3])); }
    return weighed(weighed(weighed(weighed(x, w[0], c[0]), w[1], c[1]), w[2], c[2]), w[3], c[3]);
}

fn weighed(x: mat4x4<f32>, w: vec4<f32>, c: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(w, vec4(c.x), x[0]), fma(w, vec4(c.y), x[1]), fma(w, vec4(c.z), x[2]), fma(w, vec4(c.w), x[3]));
}

// Each lane works alone, on 4 rows by KEYS columns, as in tile/direct.wgsl: what a CPU wants. It holds its rows and their sums whole.
//
// What a software adapter makes of it decides how. An element of a column is one load for all lanes; but what a loop's counter indexes in a lane's
// own memory is a gather, and storing it takes a branch per lane. So a step of the loops that add up takes many columns: 32, where there are as
// many. The loops over products hold a sum per column, and are faster by 16; they load a column just before they multiply it, for what is loaded
// before its turn leaves the registers.

const LANES_PER_ROW = 1u;

// By groups of 4 elements of a row: the columns are the elements, the rows are the lane's 4 rows.
var<private> own_heads: array<mat4x4<f32>, HEAD_GROUPS>;        // with the scale
var<private> own_values: array<mat4x4<f32>, VALUE_GROUPS>;
var<private> head_sums: array<mat4x4<f32>, HEAD_GROUPS>;
var<private> value_sums: array<mat4x4<f32>, VALUE_GROUPS>;

// Of the lane's 4 rows by 16 columns.
struct Sixteen { a: mat4x4<f32>, b: mat4x4<f32>, c: mat4x4<f32>, d: mat4x4<f32> }

// Where the elements of 16 columns begin.
struct Starts { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }

// The weights of 16 columns.
struct Weighed { p: Sixteen, ds: Sixteen }

// The last rows and the first by turns: a software adapter gives each core one stretch of the work, and under a causal mask
// every stretch then has as much to do.
fn row_tile_at(place: u32) -> u32 { return select(params.kernel.row_tiles - 1u - place / 2u, place / 2u, place % 2u == 1u); }

fn begin(at: Head, lane: Lane) {
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let rows = mat4x4(own_head(at, own.x, g), own_head(at, own.y, g), own_head(at, own.z, g), own_head(at, own.w, g));
        own_heads[g] = params.kernel.q_scale * transpose(rows);
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
    let h0 = starts_of_heads(at, tile, 0u);
    let h1 = starts_of_heads(at, tile, LAST_16);
    let v0 = starts_of_values(at, tile, 0u);
    let v1 = starts_of_values(at, tile, LAST_16);
    let x0 = head_products(at, h0);
    let y0 = value_products(v0);
    var x1: Sixteen;
    var y1: Sixteen;
    if (KEYS > 16u) {
        x1 = head_products(at, h1);
        y1 = value_products(v1);
    }
    relate(at, tile, own);
    let w0 = weights_of_16(at, lane, tile, 0u, x0, y0);
    var w1: Weighed;
    if (KEYS > 16u) { w1 = weights_of_16(at, lane, tile, LAST_16, x1, y1); }
    let columns = Columns(h0, h1, v0, v1);
    // Two copies of the sums, and no branch within: it would cost as much as they do.
    if (some_strange(tile, x0, x1, y0, y1)) {
        add_up(at, tile, columns, w0, w1, true);
    } else {
        add_up(at, tile, columns, w0, w1, false);
    }
    // Passes that take have tiles of 16.
    take(at, lane, tile, Slopes(w0.ds.a, w0.ds.b, w0.ds.c, w0.ds.d));
}

// Whether some columns may hold what is not finite, which rows that leave them out weigh by 0: 0 x NaN is not 0. There it becomes 0; rows
// that see it have a weight that is NaN, by the query's record. No product with such a column is finite.
fn some_strange(tile: KeyTile, x0: Sixteen, x1: Sixteen, y0: Sixteen, y1: Sixteen) -> bool {
    if (!(is_masked(tile) || SCORES_MAY_DROP)) { return false; }
    var strange = HAS_VALUE && !HAS_SLOPES; // no products tell of the columns that are weighed
    if (HAS_HEAD) { strange = strange | strange_16(x0) | strange_16(x1); }
    if (HAS_VALUE) { strange = strange | strange_16(y0) | strange_16(y1); }
    return strange;
}

// Of the tile's columns: of both halves, of both tensors.
struct Columns { h0: Starts, h1: Starts, v0: Starts, v1: Starts }

// The tile's columns, weighed, to the sums of the lane's rows.
fn add_up(at: Head, tile: KeyTile, columns: Columns, w0: Weighed, w1: Weighed, only_finite: bool) {
    // A sum of the tile by itself, then added: a chain of additions as long as the row would lose digits.
    if (HAS_VALUE) {
        for (var g = 0u; g < VALUE_GROUPS; g++) {
            var x = with_weighed_values(mat4x4<f32>(), w0.p, columns.v0, g, only_finite);
            if (KEYS > 16u) { x = with_weighed_values(x, w1.p, columns.v1, g, only_finite); }
            value_sums[g] += x;
        }
    }
    if (HAS_HEAD) {
        if (ROWS_ARE_QUERIES) {
            weigh_rows(w0.ds.a, 0u);
            weigh_rows(w0.ds.b, 4u);
            weigh_rows(w0.ds.c, 8u);
            weigh_rows(w0.ds.d, 12u);
        }
        for (var g = 0u; g < HEAD_GROUPS; g++) {
            var x = with_weighed_heads(mat4x4<f32>(), w0.ds, at, columns.h0, g, only_finite);
            if (KEYS > 16u) { x = with_weighed_heads(x, w1.ds, at, columns.h1, g, only_finite); }
            if (ROWS_ARE_QUERIES) { x = with_weighed_rows(x, at, tile, own, g); }
            head_sums[g] += x;
        }
    }
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

// --- 16 columns of the tile, from c on ---

const LAST_16 = KEYS - 16u;

fn starts_of_heads(at: Head, tile: KeyTile, c: u32) -> Starts {
    return Starts(heads_at(at, tile, c), heads_at(at, tile, c + 4u), heads_at(at, tile, c + 8u), heads_at(at, tile, c + 12u));
}

fn starts_of_values(at: Head, tile: KeyTile, c: u32) -> Starts {
    return Starts(values_at(at, tile, c), values_at(at, tile, c + 4u), values_at(at, tile, c + 8u), values_at(at, tile, c + 12u));
}

fn head_products(at: Head, starts: Starts) -> Sixteen {
    var a: mat4x4<f32>;
    var b: mat4x4<f32>;
    var c: mat4x4<f32>;
    var d: mat4x4<f32>;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let rows = own_heads[g];
        a = with_heads(a, rows, at, starts.a, g);
        b = with_heads(b, rows, at, starts.b, g);
        c = with_heads(c, rows, at, starts.c, g);
        d = with_heads(d, rows, at, starts.d, g);
    }
    return Sixteen(a, b, c, d);
}

fn value_products(starts: Starts) -> Sixteen {
    var a: mat4x4<f32>;
    var b: mat4x4<f32>;
    var c: mat4x4<f32>;
    var d: mat4x4<f32>;
    if (HAS_SLOPES) {
        for (var g = 0u; g < VALUE_GROUPS; g++) {
            let rows = own_values[g];
            a = with_values(a, rows, starts.a, g);
            b = with_values(b, rows, starts.b, g);
            c = with_values(c, rows, starts.c, g);
            d = with_values(d, rows, starts.d, g);
        }
    }
    return Sixteen(a, b, c, d);
}

fn with_weighed_heads(x: mat4x4<f32>, w: Sixteen, at: Head, starts: Starts, g: u32, only_finite: bool) -> mat4x4<f32> {
    let a = with_weighed(x, w.a, heads(at, starts.a, g), only_finite);
    let b = with_weighed(a, w.b, heads(at, starts.b, g), only_finite);
    let c = with_weighed(b, w.c, heads(at, starts.c, g), only_finite);
    return with_weighed(c, w.d, heads(at, starts.d, g), only_finite);
}

fn with_weighed_values(x: mat4x4<f32>, w: Sixteen, starts: Starts, g: u32, only_finite: bool) -> mat4x4<f32> {
    let a = with_weighed(x, w.a, values(starts.a, g), only_finite);
    let b = with_weighed(a, w.b, values(starts.b, g), only_finite);
    let c = with_weighed(b, w.c, values(starts.c, g), only_finite);
    return with_weighed(c, w.d, values(starts.d, g), only_finite);
}

fn weights_of_16(at: Head, lane: Lane, tile: KeyTile, c: u32, x: Sixteen, y: Sixteen) -> Weighed {
    let t = vec4(c) + vec4(0u, 1u, 2u, 3u);
    let a = weights_of(at, lane, tile, t, with_rows(x.a, c), y.a);
    let b = weights_of(at, lane, tile, t + vec4(4u), with_rows(x.b, c + 4u), y.b);
    let g = weights_of(at, lane, tile, t + vec4(8u), with_rows(x.c, c + 8u), y.c);
    let h = weights_of(at, lane, tile, t + vec4(12u), with_rows(x.d, c + 12u), y.d);
    return Weighed(Sixteen(a.p, b.p, g.p, h.p), Sixteen(a.ds, b.ds, g.ds, h.ds));
}

fn strange_16(x: Sixteen) -> bool {
    return some_not_finite(x.a) | some_not_finite(x.b) | some_not_finite(x.c) | some_not_finite(x.d);
}

// --- 4 columns of the tile ---

// Where the elements of 4 columns, from c on, begin.
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

// Products of the lane's rows with 4 columns, with those of one more group of elements: columns of a matrix are columns of the tile.
fn with_heads(x: mat4x4<f32>, rows: mat4x4<f32>, at: Head, begin_at: vec4<u32>, g: u32) -> mat4x4<f32> {
    return mat4x4(product(x[0], rows, column_head(at, begin_at.x, g)), product(x[1], rows, column_head(at, begin_at.y, g)),
                  product(x[2], rows, column_head(at, begin_at.z, g)), product(x[3], rows, column_head(at, begin_at.w, g)));
}

fn with_values(x: mat4x4<f32>, rows: mat4x4<f32>, begin_at: vec4<u32>, g: u32) -> mat4x4<f32> {
    return mat4x4(product(x[0], rows, column_value(begin_at.x, g)), product(x[1], rows, column_value(begin_at.y, g)),
                  product(x[2], rows, column_value(begin_at.z, g)), product(x[3], rows, column_value(begin_at.w, g)));
}

fn product(x: vec4<f32>, rows: mat4x4<f32>, c: vec4<f32>) -> vec4<f32> {
    return fma(rows[3], vec4(c.w), fma(rows[2], vec4(c.z), fma(rows[1], vec4(c.y), fma(rows[0], vec4(c.x), x))));
}

// 4 columns weighed for each of the lane's rows, added to x; the columns of x are elements.
fn with_weighed(x: mat4x4<f32>, w: mat4x4<f32>, columns: mat4x4<f32>, only_finite: bool) -> mat4x4<f32> {
    var c = columns;
    if (only_finite) { c = mat4x4(finite(c[0]), finite(c[1]), finite(c[2]), finite(c[3])); }
    return weighed(weighed(weighed(weighed(x, w[0], c[0]), w[1], c[1]), w[2], c[2]), w[3], c[3]);
}

fn weighed(x: mat4x4<f32>, w: vec4<f32>, c: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(w, vec4(c.x), x[0]), fma(w, vec4(c.y), x[1]), fma(w, vec4(c.z), x[2]), fma(w, vec4(c.w), x[3]));
}

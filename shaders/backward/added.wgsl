// What relative rows and segments add to the products of a tile, column by column, and to dq: on the direct tile.

// Of a tile's columns, for the lane's 4 rows: what is added to the products, and the weights of what is added to the keys. Loops fill
// and use them, so that the text of a pair, with its loads, is there once.
var<private> row_products: array<vec4<f32>, KEYS>;
var<private> row_weights: array<vec4<f32>, KEYS>;
// Whether the rows are of the column's segment.
var<private> same_columns: array<vec4<bool>, KEYS>;

// Makes what is added to the products; `own` are the queries or keys that are the lane's rows.
fn relate(at: Head, tile: KeyTile, own: vec4<u32>) {
    begin_segments(at, own);
    for (var c = 0u; c < KEYS; c++) {
        let column = key_at(at, tile.first + c);
        let same = own_of_segment(at, own, column);
        same_columns[c] = same;
        row_products[c] = related(at, own, column) + segmented(at, column, same);
    }
}

// Products of 4 columns from c on, with what is added to them.
fn with_rows(x: mat4x4<f32>, c: u32) -> mat4x4<f32> {
    return x + mat4x4(row_products[c], row_products[c + 1u], row_products[c + 2u], row_products[c + 3u]);
}

// Keeps the weights of 4 columns from c on.
fn weigh_rows(w: mat4x4<f32>, c: u32) {
    row_weights[c] = w[0];
    row_weights[c + 1u] = w[1];
    row_weights[c + 2u] = w[2];
    row_weights[c + 3u] = w[3];
}

// What the queries `own` of the lane meet beside the keys, weighed and added to x, as `with_weighed` adds the keys.
fn with_weighed_rows(x: mat4x4<f32>, at: Head, tile: KeyTile, own: vec4<u32>, g: u32) -> mat4x4<f32> {
    var sum = x;
    if (HAS_RELATIVE) { sum = with_weighed_related(sum, at, tile, own, g); }
    if (HAS_SEGMENTS) { sum = with_weighed_segments(sum, at, g); }
    return sum;
}

fn with_weighed_related(x: mat4x4<f32>, at: Head, tile: KeyTile, own: vec4<u32>, g: u32) -> mat4x4<f32> {
    var sum = x;
    for (var c = 0u; c < KEYS; c++) {
        let rows = rows_of_pairs(at, own, key_at(at, tile.first + c));
        let r = transpose(mat4x4(finite_where_masked(tile, related_row(rows.x, g)), finite_where_masked(tile, related_row(rows.y, g)),
                                 finite_where_masked(tile, related_row(rows.z, g)), finite_where_masked(tile, related_row(rows.w, g))));
        let w = row_weights[c];
        sum = mat4x4(fma(w, r[0], sum[0]), fma(w, r[1], sum[1]), fma(w, r[2], sum[2]), fma(w, r[3], sum[3]));
    }
    return sum;
}

fn with_weighed_segments(x: mat4x4<f32>, at: Head, g: u32) -> mat4x4<f32> {
    var same = vec4(0.0);
    var other = vec4(0.0);
    for (var c = 0u; c < KEYS; c++) {
        same += select(vec4(0.0), row_weights[c], same_columns[c]);
        other += select(row_weights[c], vec4(0.0), same_columns[c]);
    }
    return weighed(weighed(x, same, segment_row(1u, at.head, g)), other, segment_row(2u, at.head, g));
}

// What relative rows and segments add to the products of a tile, column by column, and to dq.

// Of a tile's columns, for the lane's 4 rows: what is added to the products, and the weights of what is added to the keys. Loops fill
// and use them, so that the text of a pair, with its loads, is there once.
var<private> row_products: array<vec4<f32>, KEYS>;
var<private> row_weights: array<vec4<f32>, KEYS>;

// Makes what is added to the products; `own` are the queries or keys that are the lane's rows.
fn relate(at: Head, tile: KeyTile, own: vec4<u32>) {
    begin_segments(at, own);
    for (var c = 0u; c < KEYS; c++) {
        let column = key_at(at, tile.first + c);
        row_products[c] = related(at, own, column) + segmented(at, own, column, c);
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
    return with_weighed_segments(with_weighed_related(x, at, tile, own, g), at, tile, own, g);
}

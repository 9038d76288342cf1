// Which keys of a partial block a row sees: one bit an element, in tiles that equal blocks share.
fn keep(tile: u32, row: u32, key: vec4<u32>) -> vec4<bool> {
    let row_at = params.tiles_at + (tile * BLOCK_Q + row) * WORDS_A_TILE_ROW;
    let words = vec4(mask[row_at + key.x / 32u], mask[row_at + key.y / 32u],
                     mask[row_at + key.z / 32u], mask[row_at + key.w / 32u]);
    return ((words >> (key % vec4(32u))) & vec4(1u)) == vec4(1u);
}

// Which queries and keys meet: the block mask, packed in `mask`, and the orders of the part.

// First row and end of a row tile.
fn rows_of(row_tile: u32) -> vec2<u32> { return vec2(row_tile * ROWS, params.q_count); }

// The tiles of keys of the rows' block row, run by run; of those, every params.splits-th.
fn walk(at: Head, lane: Lane) {
    var block_row = at.batch * params.mask_batch + at.head * params.mask_head;
    if (!PACKED) { block_row += at.first_row / BLOCK_Q; } // packed rows are all of the first block row
    var wait = at.split; // tiles that pass before the next that is this work item's
    let end = mask[params.rows_at + 2u * block_row + 2u];
    for (var run = mask[params.rows_at + 2u * block_row]; run < end; run++) {
        let first_block = mask[params.runs_at + 3u * run];
        let blocks = mask[params.runs_at + 3u * run + 1u];
        let kind = mask[params.runs_at + 3u * run + 2u];
        // A full run is one stretch of keys; the blocks of a partial run each begin their bit tile anew.
        let stretch = select(BLOCK_K, blocks * BLOCK_K, kind == FULL);
        for (var done = 0u; done < blocks * BLOCK_K; done += stretch) {
            for (var offset = wait * KEYS; offset < stretch; offset += params.splits * KEYS) {
                let first = first_block * BLOCK_K + done + offset;
                attend(at, lane, KeyTile(first, min(KEYS, stretch - offset), kind, offset));
            }
            wait = (wait + params.splits - (stretch + KEYS - 1u) / KEYS % params.splits) % params.splits;
        }
    }
}

// Which keys of a partial block a row sees: one bit an element, in tiles that equal blocks share.
fn keep(tile: u32, row: u32, key: vec4<u32>) -> vec4<bool> {
    let row_at = params.tiles_at + (tile * BLOCK_Q + row) * WORDS_A_TILE_ROW;
    let words = vec4(mask[row_at + key.x / 32u], mask[row_at + key.y / 32u],
                     mask[row_at + key.z / 32u], mask[row_at + key.w / 32u]);
    return ((words >> (key % vec4(32u))) & vec4(1u)) == vec4(1u);
}

// The query of the tensors that is row `row` of this part.
fn query_at(at: Head, row: u32) -> u32 {
    if (PACKED) { return min(row, params.q_count - 1u) % params.q_len; }
    if (HAS_Q_ORDER) { return mask[params.q_order_at + min(row, params.q_count - 1u)]; }
    return row;
}

// The key of the tensors that is key `key` of this part.
fn key_at(at: Head, key: u32) -> u32 {
    let place = min(key, params.k_count - 1u); // a short tile's last lanes look past the end
    if (HAS_K_ORDER) { return mask[params.k_order_at + place]; }
    return place;
}

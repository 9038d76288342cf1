// Which queries and keys meet: the block mask and the orders of the part, packed in `mask`.

struct KeepParams {
    rows_at: u32,           // where the tables of `mask` begin, in words; see PackedMask
    runs_at: u32,
    tiles_at: u32,
    q_order_at: u32,
    k_order_at: u32,
    batch: u32,             // strides of the row table, in block rows; 0 where shared
    head: u32,
    heads_at: u32,          // where the computed heads are listed, if not all are: see heads/chosen.wgsl
}

@group(0) @binding(BINDING_mask) var<storage, read> mask: array<u32>;

// First row and end of a row tile.
fn rows_of(row_tile: u32) -> vec2<u32> { return vec2(row_tile * ROWS, params.kernel.q_count); }

fn block_row(at: Head) -> u32 {
    let first = at.batch * params.keep.batch + at.head * params.keep.head;
    if (PACKED) { return first; } // packed rows are all of the first block row
    return first + at.first_row / BLOCK_Q;
}

// Whether the split has any of the tiles of keys of the rows' block row.
fn has_tiles(at: Head) -> bool {
    let row = params.keep.rows_at + 2u * block_row(at);
    var tiles = 0u;
    for (var run = mask[row]; run < mask[row + 2u]; run++) {
        let blocks = mask[params.keep.runs_at + 3u * run + 1u];
        let full = mask[params.keep.runs_at + 3u * run + 2u] == FULL;
        tiles += select(blocks * tiles_of(BLOCK_K), tiles_of(blocks * BLOCK_K), full);
    }
    return at.split * params.kernel.tiles_per_split < tiles;
}

// In a stretch of keys.
fn tiles_of(stretch: u32) -> u32 { return (stretch + KEYS - 1u) / KEYS; }

// The tiles of keys of the rows' block row, run by run; of those, the split's: so many in a row.
fn walk(at: Head, lane: Lane) {
    let row = params.keep.rows_at + 2u * block_row(at);
    var before = at.split * params.kernel.tiles_per_split; // tiles that are earlier splits'
    var left = params.kernel.tiles_per_split;              // and the split's own: neither counts unless MAY_SPLIT
    let end = mask[row + 2u];
    for (var run = mask[row]; run < end; run++) {
        let first_block = mask[params.keep.runs_at + 3u * run];
        let blocks = mask[params.keep.runs_at + 3u * run + 1u];
        let kind = mask[params.keep.runs_at + 3u * run + 2u];
        // A full run is one stretch of keys; the blocks of a partial run each begin their bit tile anew.
        let stretch = select(BLOCK_K, blocks * BLOCK_K, kind == FULL);
        for (var done = 0u; done < blocks * BLOCK_K; done += stretch) {
            var first_key = 0u;
            var end_key = stretch;
            if (MAY_SPLIT) {
                let tiles = tiles_of(stretch);
                let passed = min(before, tiles);
                let taken = min(left, tiles - passed);
                before -= passed;
                left -= taken;
                first_key = passed * KEYS;
                end_key = min(end_key, (passed + taken) * KEYS);
            }
            for (var offset = first_key; offset < end_key; offset += KEYS) {
                let first = first_block * BLOCK_K + done + offset;
                attend(at, lane, KeyTile(first, min(KEYS, stretch - offset), kind, offset));
            }
        }
    }
}

// Which of 4 keys of a partial block, KEY_STRIDE apart, a row sees.
fn keep(tile: u32, row: u32, key: vec4<u32>) -> vec4<bool> { return (vec4(kept(tile, row, key, 0xffffffffu)) & KEPT) != vec4(0u); }

// The bits of 4 such keys in a word. Where one word of the mask has them all, they lie as there, for keys begin at a multiple of their stretch.
const KEPT = select(vec4(1u, 1u << 16u, 1u << 8u, 1u << 24u), vec4(1u) << (min(KEY_STRIDE, 8u) * vec4(0u, 1u, 2u, 3u)), KEY_STRIDE <= 8u);

// The same as bits, of keys that are `inside`: one bit per element, in tiles that equal blocks share. Keys past the block, whose place is cut, are
// not inside, or are left out anyway.
fn kept(tile: u32, row: u32, key: vec4<u32>, inside: u32) -> u32 {
    let row_at = params.keep.tiles_at + (tile * BLOCK_Q + row) * WORDS_PER_TILE_ROW;
    let near = mask[row_at + key.x / 32u] >> (key.x % 32u);
    if (KEY_STRIDE <= 8u) { return near & inside; }
    let far = mask[row_at + key.z / 32u] >> (key.z % 32u);
    // Two words have two each.
    if (KEY_STRIDE == 16u) { return ((near & 0x10001u) | ((far & 0x10001u) << 8u)) & inside; }
    let second = mask[row_at + key.y / 32u] >> (key.y % 32u);
    let last = mask[row_at + key.w / 32u] >> (key.w % 32u);
    return (((near & 1u) | ((second & 1u) << 16u)) | (((far & 1u) << 8u) | ((last & 1u) << 24u))) & inside;
}

// The query of the tensors that is row `row` of this part.
fn query_at(at: Head, row: u32) -> u32 {
    if (PACKED) { return min(row, params.kernel.q_count - 1u) % params.kernel.q_len; }
    if (HAS_Q_ORDER) { return mask[params.keep.q_order_at + min(row, params.kernel.q_count - 1u)]; }
    return row;
}

// The key of the tensors that is key `key` of this part.
fn key_at(at: Head, key: u32) -> u32 {
    let place = min(key, params.kernel.k_count - 1u); // a short tile's last lanes look past the end
    if (HAS_K_ORDER) { return mask[params.keep.k_order_at + place]; }
    return place;
}

// Where the elements of that key, and of its value, begin.
fn key_offset(at: Head, key: u32) -> u32 { return at.k_at + key_at(at, key) * params.k.row; }

fn value_offset(at: Head, key: u32) -> u32 { return at.v_at + key_at(at, key) * params.v.row; }

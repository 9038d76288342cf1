// Tiles of packed queries [H, rows]. The tiles of sequence b are from number floor(o_b G / ROWS) + b on, with its first row o_b and G heads per key
// head: at least as many as it needs, for ceil(x) <= floor(y + x) - floor(y) + 1, and all in all no more than the rows' own and one per sequence.

struct Place { batch: u32, kv_head: u32, tile: u32 }

fn place_of_tile(n: u32) -> Place {
    let tile = n / params.cache.kv_heads;
    // The last sequence whose tiles begin at this one or before it.
    var low = 0u;
    var high = params.cache.batch;
    for (var step = 0u; step < 32u; step++) {
        if (low >= high) { break; }
        let middle = (low + high + 1u) / 2u;
        if (first_tile(middle) <= tile) { low = middle; } else { high = middle - 1u; }
    }
    return Place(low, n % params.cache.kv_heads, tile - first_tile(low));
}

fn first_tile(batch: u32) -> u32 { return offset_of(batch) * params.kernel.heads_per_kv_head / ROWS + batch; }

// The element at which a sequence's first query of head 0 begins.
fn first_query(batch: u32) -> u32 { return offset_of(batch) * params.q.row; }

// Whether a sequence has a row t.
fn has_row(batch: u32, t: u32) -> bool { return t < count_of(batch); }

// The place of its state.
fn stat_of(split: u32, batch: u32, head: u32, t: u32) -> u32 {
    return (split * params.kernel.heads + head) * params.cache.most_new + offset_of(batch) + t;
}

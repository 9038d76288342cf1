// Tiles of queries [B, H, new]: each sequence has as many.

struct Place { batch: u32, kv_head: u32, tile: u32 }

fn place_of_tile(n: u32) -> Place {
    let group = n / params.kernel.row_tiles;
    return Place(group / params.cache.kv_heads, group % params.cache.kv_heads, n % params.kernel.row_tiles);
}

// The element at which a sequence's first query of head 0 begins.
fn first_query(batch: u32) -> u32 { return batch * params.q.batch; }

// Whether a sequence has a row t, new or not.
fn has_row(batch: u32, t: u32) -> bool { return t < params.cache.most_new; }

// The place of its state.
fn stat_of(split: u32, batch: u32, head: u32, t: u32) -> u32 {
    return ((split * params.cache.batch + batch) * params.kernel.heads + head) * params.cache.most_new + t;
}

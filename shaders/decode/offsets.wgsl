// New rows of all sequences lie packed: where those of each begin, in the device's own memory, and last where the last ones end. The first
// begin at 0, whatever is there; what is past the end is cut off. Behind the last sequence one more stands for rows that are nobody's.

struct CacheParams { capacity: u32, kv_heads: u32, most_new: u32, pages: u32, batch: u32 }     // most_new rows in all

@group(0) @binding(BINDING_offsets) var<storage, read> offsets: array<u32>;     // [B + 1]

fn offset_of(batch: u32) -> u32 {
    if (batch == 0u) { return 0u; }
    if (batch > params.cache.batch) { return params.cache.most_new; }
    return min(offsets[batch], params.cache.most_new);
}

fn count_of(batch: u32) -> u32 {
    let first = offset_of(batch);
    return max(offset_of(batch + 1u), first) - first;
}

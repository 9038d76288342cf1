// How many new positions each sequence has, in the device's own memory. What is past the most is cut off.

struct CacheParams { capacity: u32, kv_heads: u32, most_new: u32, pages: u32, batch: u32 }

@group(0) @binding(BINDING_counts) var<storage, read> counts: array<u32>;       // [B]

fn count_of(batch: u32) -> u32 { return min(counts[batch], params.cache.most_new); }

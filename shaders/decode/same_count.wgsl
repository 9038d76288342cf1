// Every sequence has the same number of new positions.

struct CacheParams { capacity: u32, kv_heads: u32, most_new: u32, pages: u32, batch: u32 }

fn count_of(batch: u32) -> u32 { return params.cache.most_new; }

// Keys and values [B, Hkv, capacity]: the row of a position.

fn row_of(batch: u32, head: u32, position: u32) -> u32 {
    return (batch * params.cache.kv_heads + head) * params.cache.capacity + position;
}

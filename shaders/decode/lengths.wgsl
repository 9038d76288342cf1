// How many keys a sequence has, in the device's own memory. What is past the capacity is cut off.

@group(0) @binding(BINDING_lengths) var<storage, read> lengths: array<u32>;     // [B]

fn length_of(batch: u32) -> u32 { return min(lengths[batch], params.cache.capacity); }

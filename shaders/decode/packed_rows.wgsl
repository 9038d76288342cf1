// Keys and values of all sequences packed, in tensors of the caller's: `capacity` rows of each head. Where each sequence's begin is in the device's
// own memory, and last where the last ones end. The first begin at 0, whatever is there; what is past the end is cut off.

@group(0) @binding(BINDING_k_offsets) var<storage, read> k_offsets: array<u32>;     // [B + 1]

fn first_key(batch: u32) -> u32 {
    if (batch == 0u) { return 0u; }
    return min(k_offsets[batch], params.cache.capacity);
}

fn length_of(batch: u32) -> u32 {
    let first = first_key(batch);
    return max(first_key(batch + 1u), first) - first;
}

// The element at which a position's row begins.
fn key_row(batch: u32, head: u32, position: u32) -> u32 {
    return params.k.offset + head * params.k.head + (first_key(batch) + position) * params.k.row;
}
fn value_row(batch: u32, head: u32, position: u32) -> u32 {
    return params.v.offset + head * params.v.head + (first_key(batch) + position) * params.v.row;
}

fn value_step() -> u32 { return params.v.row; }

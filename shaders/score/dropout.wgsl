// Which weights are dropped: a function of the seed, the batch item, the head and the places of query and key in the tensors.

struct DropoutParams {
    seed_low: u32,
    seed_high: u32,
    threshold: u32,         // round(rate 2^32)
    factor: f32,            // 1 / (1 - rate)
}

// The generator's keys for 4 heads of a batch item.
fn dropout_keys(batch: u32, heads: vec4<u32>) -> Words {
    let seed = Words(vec4(params.dropout.seed_low), vec4(params.dropout.seed_high));
    return threefry(seed, Words(vec4(batch), heads));
}

// Of a query with 4 keys: which weights are not dropped.
fn is_met(key: vec2<u32>, i: u32, j: vec4<u32>) -> vec4<bool> {
    return threefry(Words(vec4(key.x), vec4(key.y)), Words(vec4(i), j)).x >= vec4(params.dropout.threshold);
}

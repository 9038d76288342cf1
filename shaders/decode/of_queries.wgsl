// Rows are queries, whose keys are the last in the cache; they go side by side, [B, H, new].

fn position_of(batch: u32, t: u32) -> u32 {
    let length = length_of(batch);
    return length - min(count_of(batch), length) + t;
}

fn place_of(batch: u32, head: u32, t: u32, position: u32) -> u32 {
    return (batch * params.kernel.heads + head) * params.cache.most_new + t;
}

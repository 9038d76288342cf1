@group(0) @binding(BINDING_weights) var<storage, read> weights: array<f32>;            // [B, Hkv, Lk]; DROPPED: no query sees the key

// Of sums relative to `top`, which is at least minus the key's own logarithm: no more than 1.
fn row_factor(key: u32, top: f32) -> f32 {
    let log = weights[key];
    if (log == DROPPED || top == DROPPED) { return 0.0; }
    return select(exp(clamp(log + top, -100.0, 1.0)), 1.0, log == -top);
}

@group(0) @binding(BINDING_weights) var<storage, read_write> weights: array<f32>;  // [B, Hkv, Lk]; DROPPED: no query sees the key

fn leave_weight(key: u32, log_weight: f32) { weights[key] = log_weight; }

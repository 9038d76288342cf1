// The weights of a row, each where its key is. What is not in S stays as it was: 0.

@group(0) @binding(BINDING_weights) var<storage, read_write> weights: array<f32>;       // [N, Lk]

fn note(j: vec4<u32>, p: vec4<f32>, kept: vec4<bool>) {
    let at = vec4(own_n * params.kernel.kv_len) + j;
    if (kept.x) { weights[at.x] = p.x; }
    if (kept.y) { weights[at.y] = p.y; }
    if (kept.z) { weights[at.z] = p.z; }
    if (kept.w) { weights[at.w] = p.w; }
}

@group(0) @binding(BINDING_phi) var<storage, read> phi: array<vec4<f32>>;          // [B, heads, len, groups]

fn phi_of(at: u32) -> vec4<f32> { return phi[at]; }

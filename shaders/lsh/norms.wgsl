// Norms in a buffer of their own.
@group(0) @binding(BINDING_norms) var<storage, read> norms: array<f32>;         // 1 / |x| [B, H, L]

fn norm_at(at: u32) -> f32 { return norms[at]; }

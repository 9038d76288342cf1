// The factor that clip.wgsl left.
@group(0) @binding(BINDING_clip) var<storage, read> clip: array<f32>;             // norm, factor
fn clip_factor() -> f32 { return clip[1]; }

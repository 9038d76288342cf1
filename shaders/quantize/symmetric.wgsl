// A scale for both signs alike; 0 stays 0.
fn scale_of(slice: u32, lo: f32, hi: f32) -> f32 {
    return max(max(abs(lo), abs(hi)) / params.range, params.least_scale);
}

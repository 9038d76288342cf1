// A scale, and a zero point, for the range from the least to the most, 0 within it.
@group(0) @binding(BINDING_zero_points) var<storage, read_write> zero_points: array<i32>;

fn scale_of(slice: u32, lo: f32, hi: f32) -> f32 {
    let low = min(lo, 0.0);
    var scale = (max(hi, 0.0) - low) / params.range;
    // Nothing but zeros, or what is as good: any scale does.
    if (scale < params.least_scale) { scale = 1.0; }
    zero_points[slice] = i32(clamp(round(-low / scale), 0.0, params.range));
    return scale;
}

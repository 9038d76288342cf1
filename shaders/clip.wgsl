// The norm of all chunks together, and the factor min(1, max_norm / (norm + 1e-6)) that brings it to max_norm, by one workgroup.

struct Params {
    first_work: u32,
    end_work: u32,
    count: u32,             // chunks
    max_norm: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_partials) var<storage, read> partials: array<vec2<f32>>; // 4^x y
@group(0) @binding(BINDING_clip) var<storage, read_write> clip: array<f32>;         // norm, factor

const BARELY = 1e-6;
const BLOCK_OF_CHUNKS = 32u * LANES;

@compute @workgroup_size(LANES)
fn clip_factor(@builtin(local_invocation_index) lane: u32) {
    let exponent = max_over_lanes(lane, own_exponent(lane));
    let sum = sum_over_lanes(lane, own_sum(lane, exponent));
    if (lane != 0u) { return; }
    // The root of 0 need not be 0.
    let root = select(sqrt(max(sum, 0x1p-126f)), 0.0, bitcast<u32>(sum) == 0u);
    var norm = root * power_of_two(i32(exponent));
    var factor = min_quotient(params.max_norm, norm + BARELY);
    // Past that, norms and factors are compared as they are scaled: the norm may leave f32, and 1e-6 does not count.
    if (exponent > 60.0) { factor = min_quotient(params.max_norm * power_of_two(-i32(exponent)), root); }
    clip[0] = or_nan(vec4(sum), vec4(norm)).x;
    clip[1] = or_nan(vec4(sum), vec4(factor)).x;
}

// min(1, a / b) without a quotient above 1.
fn min_quotient(a: f32, b: f32) -> f32 { return select(a / max(b, a), 1.0, b <= a); }

fn own_exponent(lane: u32) -> f32 {
    var most = -100.0;
    for (var n = lane; n < params.count; n += LANES) { most = max(most, partials[n].x); }
    return most;
}

// Sums that are 4^-60 of the largest one or less do not count.
fn own_sum(lane: u32, exponent: f32) -> f32 {
    var total = 0.0;
    for (var first = lane; first < params.count; first += BLOCK_OF_CHUNKS) {
        var part = 0.0;
        for (var n = first; n < min(first + BLOCK_OF_CHUNKS, params.count); n += LANES) {
            let below = exponent - partials[n].x;
            let y = partials[n].y;
            part += or_nan(vec4(y), vec4(select(0.0, y * power_of_two(-2 * i32(min(below, 60.0))), below < 60.0))).x;
        }
        total += part;
    }
    return total;
}

// The sum of squares of a chunk of a flat tensor, one workgroup per chunk, as 4^exponent sum: elements are scaled by a power of two, so
// that no square that counts leaves f32. A NaN or an infinity makes it NaN.

struct Params {
    first_work: u32,        // this dispatch computes chunks first_work .. end_work
    end_work: u32,
    len: u32,
    partials_at: u32,       // where the tensor's sums begin
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_partials) var<storage, read_write> partials: array<vec2<f32>>; // exponent, sum

@compute @workgroup_size(LANES)
fn squares(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let first = work * BLOCK + 4u * lane;
    let end = min(work * BLOCK + BLOCK, params.len);
    let most = largest_over_lanes(lane, own_largest(first, end));
    let exponent = exponent_of(most);
    let sum = sum_over_lanes(lane, own_squares(first, end, power_of_two(-exponent)));
    if (lane == 0u) {
        partials[params.partials_at + work] = vec2(f32(exponent), select(sum, nan_of(most), most >= INFINITY));
    }
}

// Of the largest element, so that the largest scaled one is below 4; the scale is a normal number.
fn exponent_of(most: u32) -> i32 { return clamp(i32(most >> 23u) - 127, -100, 126); }

// What lies past the tensor's end is read as 0.
fn own_largest(first: u32, end: u32) -> u32 {
    var most = vec4(0u);
    for (var at = first; at < end; at += 4u * LANES) {
        most = max(most, magnitude(load_x(at, params.len - at)));
    }
    return max(max(most.x, most.y), max(most.z, most.w));
}

fn own_squares(first: u32, end: u32, scale: f32) -> f32 {
    var sum = vec4(0.0);
    for (var at = first; at < end; at += 4u * LANES) {
        let x = load_x(at, params.len - at) * scale;
        sum = fma(x, x, sum);
    }
    return sum4(sum);
}

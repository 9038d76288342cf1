// What the kernels over rows share: reductions over the lanes of a workgroup in a fixed order.

const LANES = 64u;
// A lane sums its elements of so many by themselves, so that few roundings meet in any of them: BLOCK / (4 LANES) + width / BLOCK.
const BLOCK = 32u * 4u * LANES;

var<workgroup> partial: array<f32, LANES>;

fn sum_over_lanes(lane: u32, x: f32) -> f32 {
    partial[lane] = x;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) { partial[lane] += partial[lane + step]; }
    }
    return workgroupUniformLoad(&partial[0]); // with a barrier on both sides
}

fn max_over_lanes(lane: u32, x: f32) -> f32 {
    partial[lane] = x;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) { partial[lane] = max(partial[lane], partial[lane + step]); }
    }
    return workgroupUniformLoad(&partial[0]);
}

fn sum4(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }

// Which of 4 elements are the row's, where `count` are left.
fn inside(count: u32) -> vec4<bool> { return vec4(0u, 1u, 2u, 3u) < vec4(count); }

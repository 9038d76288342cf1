// What the kernels over rows share: reductions over the lanes of a workgroup in a fixed order.

const LANES = 64u;
// A lane sums its elements of so many by themselves, so that few roundings meet in any of them: BLOCK / (4 LANES) + width / BLOCK.
const BLOCK = 32u * 4u * LANES;

var<workgroup> partial: array<f32, LANES>;
var<workgroup> eighths: array<f32, 8>;

// Two levels of eight: what a level costs is its barrier, above all on a CPU, where all lanes stop and go on at each.

fn sum_over_lanes(lane: u32, x: f32) -> f32 {
    partial[lane] = x;
    workgroupBarrier();
    if (lane < 8u) {
        eighths[lane] = sum8(partial[lane], partial[lane + 8u], partial[lane + 16u], partial[lane + 24u],
                             partial[lane + 32u], partial[lane + 40u], partial[lane + 48u], partial[lane + 56u]);
    }
    let x8 = workgroupUniformLoad(&eighths); // with a barrier on both sides
    return sum8(x8[0], x8[1], x8[2], x8[3], x8[4], x8[5], x8[6], x8[7]);
}

fn max_over_lanes(lane: u32, x: f32) -> f32 {
    partial[lane] = x;
    workgroupBarrier();
    if (lane < 8u) {
        eighths[lane] = max8(partial[lane], partial[lane + 8u], partial[lane + 16u], partial[lane + 24u],
                             partial[lane + 32u], partial[lane + 40u], partial[lane + 48u], partial[lane + 56u]);
    }
    let x8 = workgroupUniformLoad(&eighths);
    return max8(x8[0], x8[1], x8[2], x8[3], x8[4], x8[5], x8[6], x8[7]);
}

// By halves: three roundings each.
fn sum8(a: f32, b: f32, c: f32, d: f32, e: f32, f: f32, g: f32, h: f32) -> f32 {
    return ((a + e) + (c + g)) + ((b + f) + (d + h));
}

fn max8(a: f32, b: f32, c: f32, d: f32, e: f32, f: f32, g: f32, h: f32) -> f32 {
    return max(max(max(a, e), max(c, g)), max(max(b, f), max(d, h)));
}

fn sum4(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }

// Which of 4 elements are the row's, where `count` are left.
fn inside(count: u32) -> vec4<bool> { return vec4(0u, 1u, 2u, 3u) < vec4(count); }

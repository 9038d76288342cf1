// The largest of the lanes' numbers: of bits of |x|, among which those of a NaN are above all.

var<workgroup> largest: array<u32, LANES>;
var<workgroup> largest_eighths: array<u32, 8>;

// Two levels of eight, as sums are (rows.wgsl).
fn largest_over_lanes(lane: u32, x: u32) -> u32 {
    largest[lane] = x;
    workgroupBarrier();
    if (lane < 8u) {
        largest_eighths[lane] = max(max(max(largest[lane], largest[lane + 8u]), max(largest[lane + 16u], largest[lane + 24u])),
                                    max(max(largest[lane + 32u], largest[lane + 40u]), max(largest[lane + 48u], largest[lane + 56u])));
    }
    let x8 = workgroupUniformLoad(&largest_eighths);
    return max(max(max(x8[0], x8[1]), max(x8[2], x8[3])), max(max(x8[4], x8[5]), max(x8[6], x8[7])));
}

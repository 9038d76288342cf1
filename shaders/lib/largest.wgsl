// The largest of the lanes' numbers: of bits of |x|, among which those of a NaN are above all.

var<workgroup> largest: array<u32, LANES>;

fn largest_over_lanes(lane: u32, x: u32) -> u32 {
    largest[lane] = x;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) { largest[lane] = max(largest[lane], largest[lane + step]); }
    }
    return workgroupUniformLoad(&largest[0]);
}

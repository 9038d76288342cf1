// New keys or values into a cache of int8: a row's scale in f32, then its elements, 4 per word. One workgroup per row.
//
//     scale = max |x| / 127        x = scale round(x / scale)        ties to even
//
// The scale has 16 significant bits, so that scale int8 is an f32 without rounding.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, a row each
    end_work: u32,
    rows: u32,              // new ones of all heads
    heads: u32,             // of x
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_out) var<storage, read_write> out: array<u32>;

const INFINITY_BITS = 0x7f800000u;

// The bits of the row's largest |x|: they order as the numbers do, and NaN comes last.
var<workgroup> largest: atomic<u32>;

@compute @workgroup_size(64)
fn append(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let row = params.kernel.first_work + group.y * groups.x + group.x;
    if (row >= params.kernel.end_work || row >= params.kernel.rows) { return; }
    let own = new_row(row);
    if (!own.is_new) { return; }
    let position = position_of(own.batch, own.t);
    // A host that appends past the end is cut off.
    if (position >= params.cache.capacity) { return; }
    if (lane == 0u) { atomicStore(&largest, 0u); }
    var lane_largest = 0u;
    for (var c = lane; c < GROUPS; c += 64u) {
        let size = bitcast<vec4<u32>>(new_group(own.x_at, position, 4u * c)) & vec4(0x7fffffffu);
        lane_largest = max(lane_largest, max(max(size.x, size.y), max(size.z, size.w)));
    }
    workgroupBarrier();
    atomicMax(&largest, lane_largest);
    workgroupBarrier();
    let most = atomicLoad(&largest);
    let scale = scale_bits(most);
    let out_at = place_of(own, position) * (1u + GROUPS);
    if (lane == 0u) { out[out_at] = scale; }
    for (var c = lane; c < GROUPS; c += 64u) {
        let x = select(vec4(0.0), new_group(own.x_at, position, 4u * c) / bitcast<f32>(scale), most < INFINITY_BITS);
        out[out_at + 1u + c] = pack4xI8(vec4<i32>(clamp(round(x), vec4(-127.0), vec4(127.0))));
    }
}

// The row's scale: NaN where it holds what is not finite, never so small that products leave the normal numbers, nor so large that 127
// times it overflows.
fn scale_bits(most: u32) -> u32 {
    if (most >= INFINITY_BITS) { return 0x7fc00000u; }
    let scale = clamp(bitcast<f32>(most) * 0x1.020408p-7f, 0x1p-100f, 0x1.0204p+121f);
    return (bitcast<u32>(scale) + 0x80u) & 0xffffff00u;
}

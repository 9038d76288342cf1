// Nothing yet in any copy of a tensor's gradient.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    len: u32,               // elements
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_sums) var<storage, read_write> sums: array<f32>;     // [len]

@compute @workgroup_size(64)
fn zero(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let n = work * 64u + lane;
    if (work < params.end_work && n < params.len) { sums[n] = 0.0; }
}

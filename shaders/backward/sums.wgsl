// The copies of a tensor's gradient, added up in their order.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    len: u32,               // elements of a copy
    copies: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_sums) var<storage, read> sums: array<f32>;                   // [copies, len]
@group(0) @binding(BINDING_gradient) var<storage, read_write> gradient: array<f32>;     // [len]

@compute @workgroup_size(64)
fn add_up(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let n = work * 64u + lane;
    if (work >= params.end_work || n >= params.len) { return; }
    var sum = 0.0;
    for (var copy = 0u; copy < params.copies; copy++) { sum += sums[copy * params.len + n]; }
    gradient[n] = sum;
}

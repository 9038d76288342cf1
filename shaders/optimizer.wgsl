// A step of an optimizer over flat parameters, one lane 4 of them: p, its states and perhaps a rounded copy of p.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work
    end_work: u32,
    len: u32,
    is_first: u32,          // the first step reads no state
}

const LANES = 64u;

@compute @workgroup_size(LANES)
fn optimize(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    let at = 4u * (work * LANES + lane);
    if (work >= params.kernel.end_work || at >= params.kernel.len) { return; }
    let count = params.kernel.len - at;
    let p = stepped(at, count, load_parameters(at, count), load_gradient(at, count) * clip_factor());
    store_parameters(at, count, p);
    store_rounded(at, count, p);
}

// A state as the last step left it.
fn before(state: vec4<f32>) -> vec4<f32> { return select(state, vec4(0.0), params.kernel.is_first != 0u); }

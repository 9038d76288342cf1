// The lengths, once new keys and values are in the cache: one lane a sequence.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    batch: u32,             // B
    unused: u32,
}

@group(0) @binding(BINDING_lengths) var<storage, read_write> lengths: array<u32>;   // [B]

@compute @workgroup_size(64)
fn raise(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    let b = work * 64u + lane;
    if (work >= params.kernel.end_work || b >= params.kernel.batch) { return; }
    lengths[b] = min(min(lengths[b], params.cache.capacity) + count_of(b), params.cache.capacity);
}

// Gradient of an embedding's table: the runs that reach from block to block, one workgroup per block. A block in which no run begins that
// goes on behind it has nothing to do.

@group(0) @binding(BINDING_carries) var<storage, read> carries: array<f32>;           // [blocks, 2, width]

@compute @workgroup_size(LANES)
fn embed_carries(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let block = params.first_work + group.y * groups.x + group.x;
    if (block >= params.end_work) { return; }
    let next = (block + 1u) * BLOCK;
    let id = ids[min(next, params.rows) - 1u];
    let begins_here = ids[block * BLOCK] != id || begins(block * BLOCK);
    if (!counts(id) || !begins_here || !goes_on(id, next)) { return; }
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        var sum = carried(carry_at(block, true) + c, count);
        for (var n = block + 1u; n * BLOCK < params.rows; n++) {
            if (!goes_on(id, n * BLOCK)) { break; }
            sum += carried(carry_at(n, false) + c, count);
        }
        write_row(id, c, sum);
    }
}

fn carried(at: u32, count: u32) -> vec4<f32> {
    let last = min(count, 4u) - 1u;
    return vec4(carries[at], carries[at + min(1u, last)], carries[at + min(2u, last)], carries[at + last]);
}

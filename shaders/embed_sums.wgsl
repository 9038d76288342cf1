// Gradient of an embedding's table: what each run has within a block, one workgroup per place. A place that begins neither a run nor a block
// has nothing to do.

@group(0) @binding(BINDING_places) var<storage, read> places: array<u32>;            // [rows]: the row of dout
@group(0) @binding(BINDING_carries) var<storage, read_write> carries: array<f32>;     // [blocks, 2, width]

@compute @workgroup_size(LANES)
fn embed_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let place = params.first_work + group.y * groups.x + group.x;
    if (place >= params.end_work) { return; }
    let id = ids[place];
    let is_beginning = begins(place);
    if (!counts(id) || !(is_beginning || place % BLOCK == 0u)) { return; }
    let block = place / BLOCK;
    var end = place + 1u;
    for (var n = end; n < (block + 1u) * BLOCK; n++) {
        if (!goes_on(id, n)) { break; }
        end = n + 1u;
    }
    let is_whole = is_beginning && !goes_on(id, end);
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        var sum = vec4(0.0);
        for (var n = place; n < end; n++) { sum += load_dout(params.dout_at + places[n] * params.dout_row + c, count); }
        if (is_whole) {
            write_row(id, c, sum);
        } else {
            let at = carry_at(block, is_beginning) + c;
            for (var k = 0u; k < min(4u, count); k++) { carries[at + k] = sum[k]; }
        }
    }
}

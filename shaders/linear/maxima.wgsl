// The largest of each feature over 256 rows, one lane per 4 features; over all rows, where it is run again on what it left.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (line, 256 rows, 64 groups)
    end_work: u32,
    rows: u32,              // per line, a batch item and head
    tiles: u32,             // tiles of 256 rows per line
    groups: u32,            // groups of 4 features per row
    columns: u32,           // tiles of 64 groups per row
}

@group(0) @binding(BINDING_rows) var<storage, read> rows: array<vec4<f32>>;            // [lines, rows, groups]
@group(0) @binding(BINDING_maxima) var<storage, read_write> maxima: array<vec4<f32>>;  // [lines, tiles, groups]

@compute @workgroup_size(64)
fn linear_maxima(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let place = work % params.kernel.columns * 64u + lane;
    let g = min(place, params.kernel.groups - 1u);
    let tile = work / params.kernel.columns % params.kernel.tiles;
    let line = work / params.kernel.columns / params.kernel.tiles;
    var top = vec4(-0x1.fffffep+127f);
    for (var row = tile * 256u; row < min(tile * 256u + 256u, params.kernel.rows); row++) {
        top = max(top, rows[(line * params.kernel.rows + row) * params.kernel.groups + g]);
    }
    if (place < params.kernel.groups) { maxima[(line * params.kernel.tiles + tile) * params.kernel.groups + g] = top; }
}

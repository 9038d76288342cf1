// What several parts of a mask, or several products, have added up in f32, brought to the type and the place of a gradient; 0 in rows of masked keys
// (linear/key_mask.wgsl, where there is a mask). One lane per group of 4 elements of a row.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    rows: u32,              // of all batch items and heads
    heads: u32,
    len: u32,               // rows of a head
}

// Where the rows of a tensor [batch, head, row, element] lie, in elements; strides may be negative, in two's complement.
struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@compute @workgroup_size(64)
fn narrow_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let row = (work * 64u + lane) / GROUPS;
    let element = (work * 64u + lane) % GROUPS * 4u;
    if (row >= params.kernel.rows) { return; }
    let i = row % params.kernel.len;
    let head = row / params.kernel.len % params.kernel.heads;
    let batch = row / params.kernel.len / params.kernel.heads;
    let to = params.out.offset + batch * params.out.batch + head * params.out.head + i * params.out.row;
    let sums = load_sums(row * DIM + element, DIM - element);
    store_out(to + element, DIM - element, select(sums, vec4(0.0), vec4(is_hidden(batch * params.kernel.len + i))));
}

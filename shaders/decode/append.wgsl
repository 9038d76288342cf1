// New rows to where they belong at the sequence's own length: new keys and values into the cache, turned by the rotary embedding if asked,
// or queries turned at the positions of their keys. One lane 4 elements of a row; what is behind the row's end in its last group is 0.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    rows: u32,              // new ones of all heads
    heads: u32,             // of x
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@compute @workgroup_size(64)
fn append(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    let item = work * 64u + lane;
    let row = item / GROUPS;
    if (work >= params.kernel.end_work || row >= params.kernel.rows) { return; }
    let own = new_row(row);
    if (!own.is_new) { return; }
    let position = position_of(own.batch, own.t);
    // A host that appends past the end is cut off.
    if (position >= params.cache.capacity) { return; }
    let c = item % GROUPS * 4u;
    store_out(place_of(own, position) * 4u * GROUPS + c, 4u, new_group(own.x_at, position, c));
}

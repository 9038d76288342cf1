// A step of a recurrent network, for all items of a batch:
//
//     h_t = cell( W_ih x_t + b_ih,  W_hh h_{t-1} + b_hh )
//
// `inputs` are the products W_ih x + b_ih of a block of positions, made before by `matmul.wgsl`; h_{t-1} is the row of `out` that the
// step before left. A work item is 4 GROUPS units of some items; the work items of a step follow those of the step before, and a
// dispatch is one step, so that its number is that of its first work item.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work
    end_work: u32,
    tiles: u32,             // work items of a step
    unit_tiles: u32,        // how many of them lie side by side in an item
    first_step: u32,        // the step of work item 0
    steps: u32,
    is_backward: u32,       // from the last position to the first
    batch: u32,
    hidden: u32,
    inputs_first: u32,      // the position of the first row of `inputs`
    inputs_batch: u32,      // from item to item, in rows
    inputs_step: u32,       // from position to position, in rows
    out_at: u32,
    out_batch: u32,
    out_step: u32,
    state_at: u32,          // of h0, c0, h_n and c_n
}

// A step of some items.
struct Place {
    t: u32,
    now: u32,               // the position
    before: u32,            // that of the step before; only where t > 0
    first_item: u32,
    first_unit: u32,
}

@compute @workgroup_size(LANES)
fn recurrent(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let tile = work % params.kernel.tiles;
    let t = params.kernel.first_step + work / params.kernel.tiles;
    let is_backward = params.kernel.is_backward != 0u;
    let now = select(t, params.kernel.steps - 1u - t, is_backward);
    multiply(Place(t, now, select(now - 1u, now + 1u, is_backward), tile / params.kernel.unit_tiles * ITEMS,
                   tile % params.kernel.unit_tiles * UNITS), lane);
}

// Whether the products with h are not all 0.
fn has_before(at: Place) -> bool { return HAS_INITIAL || at.t > 0u; }

// 4 elements from k on of an item's h as the step before left it; 0 past the last.
fn h_before(at: Place, item: u32, k: u32) -> vec4<f32> {
    let count = params.kernel.hidden - k;
    if (at.t == 0u) { return load_h0(state_of(item) + k, count); }
    return select(vec4(0.0), load_out(out_of(item, at.before) + k, count), vec4(0u, 1u, 2u, 3u) < vec4(count));
}

fn state_of(item: u32) -> u32 { return params.kernel.state_at + item * params.kernel.hidden; }

fn out_of(item: u32, position: u32) -> u32 {
    return params.kernel.out_at + item * params.kernel.out_batch + position * params.kernel.out_step;
}

// Where 4 units begin in a gate's part of W_hh. What is past the last unit is never written, so it may be that unit again.
fn rows_of(unit: u32) -> vec4<u32> {
    return min(vec4(unit) + vec4(0u, 1u, 2u, 3u), vec4(params.kernel.hidden - 1u)) * params.kernel.hidden;
}

// 4 elements from k on of these rows, an element of each per column; 0 past the last.
fn weights_of(gate: u32, rows: vec4<u32>, k: u32) -> mat4x4<f32> {
    let at = rows + vec4(gate * params.kernel.hidden * params.kernel.hidden + k);
    let count = params.kernel.hidden - k;
    return transpose(mat4x4(load_w(at.x, count), load_w(at.y, count), load_w(at.z, count), load_w(at.w, count)));
}

fn with_product(sum: vec4<f32>, columns: mat4x4<f32>, h: vec4<f32>) -> vec4<f32> {
    return fma(columns[3], vec4(h.w), fma(columns[2], vec4(h.z), fma(columns[1], vec4(h.y), fma(columns[0], vec4(h.x), sum))));
}

// The end of the step for 4 units of an item, from the sums W_hh h.
fn end(at: Place, item: u32, unit: u32, sums: mat4x4<f32>) {
    if (item >= params.kernel.batch || unit >= params.kernel.hidden) { return; }
    let count = params.kernel.hidden - unit;
    let row = item * params.kernel.inputs_batch + (at.now - params.kernel.inputs_first) * params.kernel.inputs_step;
    let first = row * GATES * params.kernel.hidden;
    let inputs = mat4x4(input_of(0u, first, unit), input_of(1u, first, unit), input_of(2u, first, unit), input_of(3u, first, unit));
    let own = mat4x4(sums[0] + bias_of(0u, unit), sums[1] + bias_of(1u, unit), sums[2] + bias_of(2u, unit), sums[3] + bias_of(3u, unit));
    let h = next(at, item, unit, inputs, own);
    store_out(out_of(item, at.now) + unit, count, h);
    if (at.t + 1u == params.kernel.steps) { store_h_n(state_of(item) + unit, count, h); }
}

fn input_of(gate: u32, first: u32, unit: u32) -> vec4<f32> {
    if (gate >= GATES) { return vec4(0.0); }
    return load_inputs(first + gate * params.kernel.hidden + unit, params.kernel.hidden - unit);
}

fn bias_of(gate: u32, unit: u32) -> vec4<f32> {
    if (gate >= GATES) { return vec4(0.0); }
    return load_bias(gate * params.kernel.hidden + unit, params.kernel.hidden - unit);
}

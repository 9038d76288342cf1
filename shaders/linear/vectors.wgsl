// What gradients of linear attention multiply, one lane per row: of a query (do / l, -(do . o) / l), of a key (v, 1), so that the product of the
// two is what a weight's gradient is. linear/vector_of_query.wgsl, linear/vector_of_key.wgsl.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (batch, head, 64 rows)
    end_work: u32,
    tiles: u32,             // tiles of 64 rows per head
    heads: u32,             // of x
    len: u32,               // rows per head
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_vectors) var<storage, read_write> vectors: array<vec4<f32>>;    // [B, heads, len, VALUE_DIM + 1 rounded up to 4]

const DROPPED = -0x1.fffffep+127f;
const WHOLE_GROUPS = VALUE_DIM / 4u;

@compute @workgroup_size(64)
fn linear_vectors(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let line = work / params.kernel.tiles;
    let batch = line / params.kernel.heads;
    let place = work % params.kernel.tiles * 64u + lane;
    let inside = place < params.kernel.len;
    let row = min(place, params.kernel.len - 1u); // lanes past the end load what is there
    let x_at = params.x.offset + batch * params.x.batch + line % params.kernel.heads * params.x.head + row * params.x.row;
    let factor = factor_of(line * params.kernel.len + row, batch * params.kernel.len + row);
    let to = (line * params.kernel.len + row) * (WHOLE_GROUPS + 1u);
    var product = 0.0;
    for (var g = 0u; g < WHOLE_GROUPS; g++) {
        let x = seen(load_x(x_at + 4u * g, VALUE_DIM - 4u * g), factor);
        product = with_product(product, x, line * params.kernel.len + row, g);
        if (inside) { vectors[to + g] = x * factor; }
    }
    var last = vec4(0.0);
    if (VALUE_DIM % 4u != 0u) {
        last = seen(load_x(x_at + 4u * WHOLE_GROUPS, VALUE_DIM % 4u), factor);
        last = select(vec4(0.0), last, vec4(0u, 1u, 2u, 3u) < vec4(VALUE_DIM % 4u));
        product = with_product(product, last, line * params.kernel.len + row, WHOLE_GROUPS);
    }
    let end = vec4(0u, 1u, 2u, 3u) == vec4(VALUE_DIM % 4u);
    if (inside) {
        vectors[to + WHOLE_GROUPS] = select(last * factor, vec4(last_of(product, factor)), end);
        leave_log(line * params.kernel.len + row, factor);
    }
}

// Of a row that counts for nothing x may be anything.
fn seen(x: vec4<f32>, factor: f32) -> vec4<f32> { return select(x, vec4(0.0), vec4(factor == 0.0)); }

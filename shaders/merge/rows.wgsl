// The splits' rows, in f32, and where they go.

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_merged) var<storage, read> merged: array<vec4<f32>>; // [splits, B, H, Lq, VALUE_GROUPS]

fn merged_group(at: u32) -> vec4<f32> { return merged[at]; }

fn write_group(row: u32, group: u32, o: vec4<f32>) {
    let i = row % params.kernel.q_len;
    let head = row / params.kernel.q_len % params.kernel.heads;
    let batch = row / params.kernel.q_len / params.kernel.heads;
    let to = params.out.offset + batch * params.out.batch + head * params.out.head + i * params.out.row;
    store_out(to + 4u * group, VALUE_DIM - 4u * group, o);
}

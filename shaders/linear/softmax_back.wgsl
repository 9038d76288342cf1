struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_products) var<storage, read> products: array<vec4<f32>>;    // [B, Hkv, Lk, groups]: of a share and its gradient

fn changed(at: u32, phi: vec4<f32>, z: vec4<f32>) -> vec4<f32> { return fma(-phi, z, products[at]); }
fn leave(line: u32, key: u32, g: u32, at: u32, value: vec4<f32>) {
    let row = params.out.offset + line / params.kernel.heads * params.out.batch + line % params.kernel.heads * params.out.head + key * params.out.row;
    store_out(row + 4u * g, HEAD_DIM - 4u * g, value);
}

enable f16;
enable wgpu_cooperative_matrix;

// c = sum over k of a_k b_k with 16 x 16 matrices: on hardware with matrix units each step is one instruction.

@group(0) @binding(0) var<uniform> steps: u32;
@group(0) @binding(1) var<storage, read> a: array<f16>;             // [steps, 16, 16]
@group(0) @binding(2) var<storage, read> b: array<f16>;             // [steps, 16, 16]
@group(0) @binding(3) var<storage, read_write> c: array<f32>;       // [16, 16]

@compute @workgroup_size(64)
fn product() {
    var sum = coopLoad<coop_mat16x16<f32, C>>(&c[0], 16u);
    for (var k = 0u; k < steps; k++) {
        let x = coopLoad<coop_mat16x16<f16, A>>(&a[k * 256u], 16u);
        let y = coopLoad<coop_mat16x16<f16, B>>(&b[k * 256u], 16u);
        sum = coopMultiplyAdd(x, y, sum);
    }
    coopStore(sum, &c[0], 16u);
}

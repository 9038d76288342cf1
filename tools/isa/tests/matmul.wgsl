// C = A B by 64 x 64 tiles: the usual register-tiled product, here as a kernel whose numbers are known.

struct Sizes { rows: u32, columns: u32, inner: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f32>;             // [rows, inner]
@group(0) @binding(2) var<storage, read> b: array<f32>;             // [inner, columns]
@group(0) @binding(3) var<storage, read_write> c: array<f32>;       // [rows, columns]

var<workgroup> a_tile: array<vec4<f32>, 256>;   // [16 inner, 64 rows]
var<workgroup> b_tile: array<vec4<f32>, 256>;   // [16 inner, 64 columns]

@compute @workgroup_size(16, 16)
fn matmul(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>,
          @builtin(local_invocation_index) index: u32) {
    var c0 = vec4(0.0);
    var c1 = vec4(0.0);
    var c2 = vec4(0.0);
    var c3 = vec4(0.0);
    let row = tile.y * 64u + (index % 16u) * 4u;
    let column = tile.x * 64u + (index % 16u) * 4u;
    let k = index / 16u;
    for (var first = 0u; first < sizes.inner; first += 16u) {
        let a_at = row * sizes.inner + first + k;
        a_tile[index] = vec4(a[a_at], a[a_at + sizes.inner], a[a_at + 2u * sizes.inner], a[a_at + 3u * sizes.inner]);
        let b_at = (first + k) * sizes.columns + column;
        b_tile[index] = vec4(b[b_at], b[b_at + 1u], b[b_at + 2u], b[b_at + 3u]);
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            let x = a_tile[i * 16u + lane.y];
            let y = b_tile[i * 16u + lane.x];
            c0 = fma(vec4(x.x), y, c0);
            c1 = fma(vec4(x.y), y, c1);
            c2 = fma(vec4(x.z), y, c2);
            c3 = fma(vec4(x.w), y, c3);
        }
        workgroupBarrier();
    }
    let at = (tile.y * 64u + lane.y * 4u) * sizes.columns + tile.x * 64u + lane.x * 4u;
    for (var i = 0u; i < 4u; i++) {
        c[at + i] = c0[i];
        c[at + sizes.columns + i] = c1[i];
        c[at + 2u * sizes.columns + i] = c2[i];
        c[at + 3u * sizes.columns + i] = c3[i];
    }
}

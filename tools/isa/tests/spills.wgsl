// A planted fault: 384 sums that live at the same time, more than a lane of any GPU has registers for.

struct Sizes { rows: u32, columns: u32, inner: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;         // [inner, lanes, 24 rows]
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;         // [inner, 16 columns]
@group(0) @binding(3) var<storage, read_write> c: array<vec4<f32>>;   // [lanes], the sum of all

@compute @workgroup_size(64)
fn spilling(@builtin(global_invocation_id) id: vec3<u32>) {
    var s00 = mat4x4<f32>(); var s01 = mat4x4<f32>(); var s02 = mat4x4<f32>(); var s03 = mat4x4<f32>();
    var s10 = mat4x4<f32>(); var s11 = mat4x4<f32>(); var s12 = mat4x4<f32>(); var s13 = mat4x4<f32>();
    var s20 = mat4x4<f32>(); var s21 = mat4x4<f32>(); var s22 = mat4x4<f32>(); var s23 = mat4x4<f32>();
    var s30 = mat4x4<f32>(); var s31 = mat4x4<f32>(); var s32 = mat4x4<f32>(); var s33 = mat4x4<f32>();
    var s40 = mat4x4<f32>(); var s41 = mat4x4<f32>(); var s42 = mat4x4<f32>(); var s43 = mat4x4<f32>();
    var s50 = mat4x4<f32>(); var s51 = mat4x4<f32>(); var s52 = mat4x4<f32>(); var s53 = mat4x4<f32>();
    for (var k = 0u; k < sizes.inner; k++) {
        let row = (k * sizes.rows + id.x) * 6u;
        let y0 = b[k * 4u + 0u];
        let y1 = b[k * 4u + 1u];
        let y2 = b[k * 4u + 2u];
        let y3 = b[k * 4u + 3u];
        let x0 = a[row + 0u];
        s00 = sums(x0, y0, s00);
        s01 = sums(x0, y1, s01);
        s02 = sums(x0, y2, s02);
        s03 = sums(x0, y3, s03);
        let x1 = a[row + 1u];
        s10 = sums(x1, y0, s10);
        s11 = sums(x1, y1, s11);
        s12 = sums(x1, y2, s12);
        s13 = sums(x1, y3, s13);
        let x2 = a[row + 2u];
        s20 = sums(x2, y0, s20);
        s21 = sums(x2, y1, s21);
        s22 = sums(x2, y2, s22);
        s23 = sums(x2, y3, s23);
        let x3 = a[row + 3u];
        s30 = sums(x3, y0, s30);
        s31 = sums(x3, y1, s31);
        s32 = sums(x3, y2, s32);
        s33 = sums(x3, y3, s33);
        let x4 = a[row + 4u];
        s40 = sums(x4, y0, s40);
        s41 = sums(x4, y1, s41);
        s42 = sums(x4, y2, s42);
        s43 = sums(x4, y3, s43);
        let x5 = a[row + 5u];
        s50 = sums(x5, y0, s50);
        s51 = sums(x5, y1, s51);
        s52 = sums(x5, y2, s52);
        s53 = sums(x5, y3, s53);
    }
    c[id.x] = row_sum(s00) + row_sum(s01) + row_sum(s02) + row_sum(s03)
            + row_sum(s10) + row_sum(s11) + row_sum(s12) + row_sum(s13)
            + row_sum(s20) + row_sum(s21) + row_sum(s22) + row_sum(s23)
            + row_sum(s30) + row_sum(s31) + row_sum(s32) + row_sum(s33)
            + row_sum(s40) + row_sum(s41) + row_sum(s42) + row_sum(s43)
            + row_sum(s50) + row_sum(s51) + row_sum(s52) + row_sum(s53);
}

fn sums(x: vec4<f32>, y: vec4<f32>, s: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(vec4(x.x), y, s[0]), fma(vec4(x.y), y, s[1]), fma(vec4(x.z), y, s[2]), fma(vec4(x.w), y, s[3]));
}

fn row_sum(s: mat4x4<f32>) -> vec4<f32> { return s[0] + s[1] + s[2] + s[3]; }

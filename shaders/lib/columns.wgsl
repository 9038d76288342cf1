// Small algebra of lanes that hold 4 rows by 4 columns of a product, and the same rows by groups of 4 columns of a sum: the staged tiles.

// Sums of 4 rows (a, b, c, d) by two groups of 4 columns.
struct Columns { a0: vec4<f32>, a1: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>,
                 c0: vec4<f32>, c1: vec4<f32>, d0: vec4<f32>, d1: vec4<f32> }

fn dots(q: vec4<f32>, k0: vec4<f32>, k1: vec4<f32>, k2: vec4<f32>, k3: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    return vec4(dot_add(q, k0, s.x), dot_add(q, k1, s.y), dot_add(q, k2, s.z), dot_add(q, k3, s.w));
}

fn dot_add(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

fn accumulated(o: Columns, p: vec4<f32>, v0: vec4<f32>, v1: vec4<f32>) -> Columns {
    return Columns(fma(vec4(p.x), v0, o.a0), fma(vec4(p.x), v1, o.a1), fma(vec4(p.y), v0, o.b0), fma(vec4(p.y), v1, o.b1),
                   fma(vec4(p.z), v0, o.c0), fma(vec4(p.z), v1, o.c1), fma(vec4(p.w), v0, o.d0), fma(vec4(p.w), v1, o.d1));
}

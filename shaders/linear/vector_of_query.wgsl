@group(0) @binding(BINDING_rows) var<storage, read> rows: array<vec4<f32>>;        // [B, H, Lq, VALUE_GROUPS + 1]: o; (l, top)

fn end_at(query: u32) -> vec4<f32> { return rows[query * (VALUE_GROUPS + 1u) + VALUE_GROUPS]; }

fn factor_of(query: u32, place: u32) -> f32 {
    let l = end_at(query).x;
    return select(1.0 / l, 0.0, l == 0.0);
}

fn with_product(product: f32, x: vec4<f32>, query: u32, g: u32) -> f32 {
    let o = rows[query * (VALUE_GROUPS + 1u) + g];
    return fma(x.w, o.w, fma(x.z, o.z, fma(x.y, o.y, fma(x.x, o.x, product))));
}

fn last_of(product: f32, factor: f32) -> f32 { return -product * factor; }

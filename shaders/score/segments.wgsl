// Segments: scale (q_i + s_h) . e_h, where e_h is one row for keys of the query's segment and another for all others. Part of
// the product, and so below every other term. A query has two such numbers, made once; the keys only choose.

// Where the parts of `segments` begin: s [H, d], e [2, H, d], the queries' segments [B, Lq], the keys' [B, Lk].
fn segment_rows(n: u32, head: u32) -> u32 { return (n * params.kernel.heads + head) * HEAD_DIM; }
fn segments_of_queries(batch: u32) -> u32 { return segment_rows(3u, 0u) + batch * params.kernel.q_len; }
fn segments_of_keys(batch: u32) -> u32 { return segments_of_queries(params.kernel.batch) + batch * params.kernel.kv_len; }

// The products of a group of elements of a query with e for keys of its segment and of others, added to those of the groups before.
fn segment_products(head: u32, g: u32, query: vec4<f32>, sums: vec2<f32>) -> vec2<f32> {
    let count = HEAD_DIM - 4u * g;
    let q = (query + load_segments(segment_rows(0u, head) + 4u * g, count)) * params.kernel.q_scale;
    return vec2(segment_dot(q, load_segments(segment_rows(1u, head) + 4u * g, count), sums.x),
                segment_dot(q, load_segments(segment_rows(2u, head) + 4u * g, count), sums.y));
}

fn segment_dot(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

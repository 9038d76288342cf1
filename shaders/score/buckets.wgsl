// An element of a table per bucket of distances: buckets of one distance each up to `exact`, then one more at every edge.

struct BucketsParams {
    side: u32,              // buckets of the keys up to the query
    exact: u32,             // of these, buckets of one distance each
    step: u32,              // half the edges, rounded up to a power of two
    bidirectional: u32,
    edges: array<vec4<u32>, EDGE_GROUPS>,
}

@group(0) @binding(BINDING_bucket_table) var<storage, read> bucket_table: array<f32>;   // [buckets, H]

fn buckets_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let at = at_bucket_table(pairs);
    let b = vec4(bucket_table[at.x], bucket_table[at.y], bucket_table[at.z], bucket_table[at.w]);
    spoilt = spoilt | not_finite(b);
    return s + b;
}

fn at_bucket_table(pairs: Pairs) -> vec4<u32> { return bucket(pairs.distance) * params.kernel.heads + pairs.head; }

fn by_bucket_table(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return vec4(1.0); }

fn bucket(distance: vec4<i32>) -> vec4<u32> {
    let both = vec4(params.buckets.bidirectional != 0u);
    let n = vec4<u32>(select(max(distance, vec4(0)), abs(distance), both));
    let base = select(vec4(0u), vec4(params.buckets.side), both & (distance < vec4(0)));
    // How many edges n reaches, by halving; they ascend, and the last ones are out of reach.
    var past = vec4(0u);
    for (var step = params.buckets.step; step > 0u; step /= 2u) {
        let next = past + vec4(step - 1u);
        let edges = vec4(edge(next.x), edge(next.y), edge(next.z), edge(next.w));
        past += select(vec4(0u), vec4(step), edges <= n);
    }
    return base + min(n, vec4(params.buckets.exact)) + past;
}

fn edge(n: u32) -> u32 { return params.buckets.edges[n / 4u][n % 4u]; }

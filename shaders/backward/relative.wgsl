// Relative rows, pair by pair: k meets q + u, and r meets q + w (score/relative.wgsl).

// The query as k meets it.
fn content(head: u32, q: vec4<f32>, g: u32) -> vec4<f32> { return with_u(q, head, g); }

// The products of queries with rows of r: of the lane's 4 rows and a column of the tile.
fn related(at: Head, own: vec4<u32>, column: u32) -> vec4<f32> {
    let i = select(vec4(column), own, ROWS_ARE_QUERIES);
    let rows = related_rows(at.batch, at.head, distances(i, select(own, vec4(column), ROWS_ARE_QUERIES)));
    let queries = vec4(row_at(params.q, at.batch, at.head, 0u)) + i * params.q.row;
    var sum = vec4(0.0);
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let q = queries + vec4(4u * g);
        let r = rows + vec4(4u * g);
        sum = vec4(related_dot(at.head, q.x, r.x, g, sum.x), related_dot(at.head, q.y, r.y, g, sum.y),
                   related_dot(at.head, q.z, r.z, g, sum.z), related_dot(at.head, q.w, r.w, g, sum.w));
    }
    return params.kernel.q_scale * sum;
}

fn related_dot(head: u32, query_at: u32, row_at: u32, g: u32, sum: f32) -> f32 {
    let count = HEAD_DIM - 4u * g;
    return relative_dot(with_w(load_q(query_at, count), head, g), load_relative_rows(row_at, count), sum);
}

fn distances(i: vec4<u32>, j: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(i + vec4(params.kernel.kv_len - params.kernel.q_len)) - vec4<i32>(j);
}

// Where the rows of r begin that the queries `own` of the lane meet at key j.
fn rows_of_pairs(at: Head, own: vec4<u32>, j: u32) -> vec4<u32> { return related_rows(at.batch, at.head, distances(own, vec4(j))); }

// 4 elements of the one that begins there.
fn related_row(row: u32, g: u32) -> vec4<f32> { return load_relative_rows(row + 4u * g, HEAD_DIM - 4u * g); }

// 4 elements of relative_biases: behind the records, where records.wgsl puts them, since a kernel has 8 buffers.
fn load_relative_biases(at: u32, count: u32) -> vec4<f32> {
    let first = params.kernel.records;
    if (HEAD_DIM % 4u == 0u) { return records[first + at / 4u]; }
    let c = vec4(0u, 1u, 2u, 3u);
    let e = vec4(at) + min(c, vec4(count - 1u));
    return select(vec4(0.0), vec4(records[first + e.x / 4u][e.x % 4u], records[first + e.y / 4u][e.y % 4u],
                                  records[first + e.z / 4u][e.z % 4u], records[first + e.w / 4u][e.w % 4u]), c < vec4(count));
}

// The rows that the pairs read: their first elements.
fn at_relative_rows(pairs: Pairs) -> vec4<u32> { return related_rows(pairs.batch, pairs.head, pairs.distance); }

fn at_relative_biases(pairs: Pairs) -> vec4<u32> { return vec4(pairs.head * HEAD_DIM); }

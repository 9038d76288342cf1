// Relative rows: (q_i + u_h) . k_j + (q_i + w_h) . r_h(D). The tile multiplies q + u, which `content` gives it, with k, and
// hands the products to `related`, which adds those with r: part of the product, and so below every other term.

struct RelativeParams {
    rows: Rows,             // of relative_rows
    count: u32,             // R
    first_distance: i32,    // D of row 0; row t is D = first_distance - t
    head_dim: u32,
    w_at: u32,              // where w begins in relative_biases, behind u
}

// The query of a row of the tile with u, as k meets it.
fn content(at: Head, row: u32, group: u32) -> vec4<f32> {
    let q = query(at, row, group);
    if (!RELATIVE_U) { return q; }
    return q + relative_bias(0u, head_of(at, at.first_row + row), group);
}

// 4 elements of u or w of a head.
fn relative_bias(first: u32, head: u32, group: u32) -> vec4<f32> {
    return load_relative_biases(first + head * params.relative.head_dim + 4u * group, HEAD_DIM - 4u * group);
}

// The products of the lane's 4 queries and 4 keys, with those of the queries and their rows of r.
fn related(at: Head, lane: Lane, tile: KeyTile, s: Scores) -> Scores {
    let key = tile.first + lane.c;
    let j = vec4(key_at(at, key), key_at(at, key + LANES_C), key_at(at, key + 2u * LANES_C), key_at(at, key + 3u * LANES_C));
    return Scores(row_related(at, lane.r, j, s.a), row_related(at, lane.r + LANES_R, j, s.b),
                  row_related(at, lane.r + 2u * LANES_R, j, s.c), row_related(at, lane.r + 3u * LANES_R, j, s.d));
}

fn row_related(at: Head, row: u32, j: vec4<u32>, products: vec4<f32>) -> vec4<f32> {
    let own = min(at.first_row + row, params.kernel.q_count - 1u);
    let head = head_of(at, own);
    let position = i32(query_at(at, own) + params.kernel.kv_len - params.kernel.q_len);
    // Pairs that are left out may have no row.
    let t = clamp(vec4(params.relative.first_distance - position) + vec4<i32>(j), vec4(0), vec4(i32(params.relative.count) - 1));
    let rows = vec4(row_at(params.relative.rows, at.batch, head, 0u)) + vec4<u32>(t) * params.relative.rows.row;
    var s = products;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        var q = query(at, row, g);
        if (RELATIVE_W) { q += relative_bias(params.relative.w_at, head, g); }
        q *= params.kernel.q_scale;
        let from_g = rows + vec4(4u * g);
        let count = HEAD_DIM - 4u * g;
        s = vec4(relative_dot(q, load_relative_rows(from_g.x, count), s.x), relative_dot(q, load_relative_rows(from_g.y, count), s.y),
                 relative_dot(q, load_relative_rows(from_g.z, count), s.z), relative_dot(q, load_relative_rows(from_g.w, count), s.w));
    }
    return s;
}

fn relative_dot(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

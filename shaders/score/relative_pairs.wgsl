// Relative rows pair by pair, from global memory: for every tile, orders of queries and keys, packed heads.

fn begin_related(at: Head, lane: Lane) {}

// The products of the lane's 4 queries and 4 keys, with those of the queries and their rows of r.
fn related(at: Head, lane: Lane, tile: KeyTile, s: Scores) -> Scores {
    // Always so. Mesa's software adapter runs the body of a loop once even for no lane at all, as where a split of the keys has
    // no tile, and there takes a buffer's address from nowhere; a condition it skips.
    if (tile.count == 0u) { return s; }
    let key = tile.first + lane.c;
    let j = vec4(key_at(at, key), key_at(at, key + LANES_C), key_at(at, key + 2u * LANES_C), key_at(at, key + 3u * LANES_C));
    return Scores(row_related(at, lane.r, j, s.a), row_related(at, lane.r + LANES_R, j, s.b),
                  row_related(at, lane.r + 2u * LANES_R, j, s.c), row_related(at, lane.r + 3u * LANES_R, j, s.d));
}

fn row_related(at: Head, row: u32, j: vec4<u32>, products: vec4<f32>) -> vec4<f32> {
    let own = min(at.first_row + row, params.kernel.q_count - 1u);
    let head = head_of(at, own);
    let rows = related_rows(at.batch, head, pairs_of(at.batch, head, query_at(at, own), j).distance);
    var s = products;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let q = related_query(at, row, g);
        let from_g = rows + vec4(4u * g);
        let count = HEAD_DIM - 4u * g;
        s = vec4(relative_dot(q, load_relative_rows(from_g.x, count), s.x), relative_dot(q, load_relative_rows(from_g.y, count), s.y),
                 relative_dot(q, load_relative_rows(from_g.z, count), s.z), relative_dot(q, load_relative_rows(from_g.w, count), s.w));
    }
    return s;
}

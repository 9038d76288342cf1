// Segments (score/segments.wgsl): a query has two numbers, (q_i + s) . e for keys of its segment and for others; dq_i gets e by the sums
// of ds_ij over each kind.

// Of the lane's 4 rows, where they are queries.
var<private> same_segment: vec4<f32>;
var<private> other_segment: vec4<f32>;
// Of a tile's columns and the lane's 4 rows: whether they are of one segment.
var<private> same_columns: array<vec4<bool>, KEYS>;

fn begin_segments(at: Head, own: vec4<u32>) {
    if (!ROWS_ARE_QUERIES) { return; }
    let a = segment_numbers(at, own.x);
    let b = segment_numbers(at, own.y);
    let c = segment_numbers(at, own.z);
    let d = segment_numbers(at, own.w);
    same_segment = vec4(a.x, b.x, c.x, d.x);
    other_segment = vec4(a.y, b.y, c.y, d.y);
}

fn segment_numbers(at: Head, i: u32) -> vec2<f32> {
    let q_at = row_at(params.q, at.batch, at.head, i);
    var sums = vec2(0.0);
    for (var g = 0u; g < HEAD_GROUPS; g++) { sums = segment_products(at.head, g, load_q(q_at + 4u * g, HEAD_DIM - 4u * g), sums); }
    return sums;
}

// Of the lane's 4 rows and the c-th column of the tile.
fn segmented(at: Head, own: vec4<u32>, column: u32, c: u32) -> vec4<f32> {
    let same = own_of_segment(at, own, column);
    same_columns[c] = same;
    if (ROWS_ARE_QUERIES) { return select(other_segment, same_segment, same); }
    let numbers = segment_numbers(at, column);
    return select(vec4(numbers.y), vec4(numbers.x), same);
}

fn own_of_segment(at: Head, own: vec4<u32>, column: u32) -> vec4<bool> {
    let queries = segments_of_queries(at.batch);
    let keys = segments_of_keys(at.batch);
    let rows = vec4(select(keys, queries, ROWS_ARE_QUERIES)) + own;
    let of_column = segments[select(queries, keys, ROWS_ARE_QUERIES) + column];
    return vec4(segments[rows.x], segments[rows.y], segments[rows.z], segments[rows.w]) == vec4(of_column);
}

fn with_weighed_segments(x: mat4x4<f32>, at: Head, tile: KeyTile, own: vec4<u32>, g: u32) -> mat4x4<f32> {
    var same = vec4(0.0);
    var other = vec4(0.0);
    for (var c = 0u; c < KEYS; c++) {
        same += select(vec4(0.0), row_weights[c], same_columns[c]);
        other += select(row_weights[c], vec4(0.0), same_columns[c]);
    }
    // Of a row that a query does not meet it is no matter what it holds; one that does has a weight that is NaN.
    let e = finite(load_segments(segment_rows(1u, at.head) + 4u * g, HEAD_DIM - 4u * g));
    let f = finite(load_segments(segment_rows(2u, at.head) + 4u * g, HEAD_DIM - 4u * g));
    return weighed(weighed(x, same, e), other, f);
}

// The row of e that the pairs read: its first element.
fn at_segments(pairs: Pairs) -> vec4<u32> {
    let place = vec4(segments_of_keys(pairs.batch)) + pairs.j;
    let keys = vec4(segments[place.x], segments[place.y], segments[place.z], segments[place.w]);
    let same = keys == vec4(segments[segments_of_queries(pairs.batch) + pairs.i]);
    return select(vec4(segment_rows(2u, pairs.head)), vec4(segment_rows(1u, pairs.head)), same);
}

// Segments (score/segments.wgsl): a query has two numbers, (q_i + s) . e for keys of its segment and for others; dq_i gets e by the sums
// of ds_ij over each kind.

// Of the lane's 4 rows, where they are queries.
var<private> same_segment: vec4<f32>;
var<private> other_segment: vec4<f32>;

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

// What is added to the products of the lane's 4 rows and a column of the tile, by whether they are of one segment.
fn segmented(at: Head, column: u32, same: vec4<bool>) -> vec4<f32> {
    if (ROWS_ARE_QUERIES) { return select(other_segment, same_segment, same); }
    let numbers = segment_numbers(at, column);
    return select(vec4(numbers.y), vec4(numbers.x), same);
}

// Whether the lane's 4 rows and a column of the tile are of one segment.
fn own_of_segment(at: Head, own: vec4<u32>, column: u32) -> vec4<bool> {
    let queries = segments_of_queries(at.batch);
    let keys = segments_of_keys(at.batch);
    let rows = vec4(select(keys, queries, ROWS_ARE_QUERIES)) + own;
    let of_column = segments[select(queries, keys, ROWS_ARE_QUERIES) + column];
    return vec4(segments[rows.x], segments[rows.y], segments[rows.z], segments[rows.w]) == vec4(of_column);
}

// 4 elements of a row of e. Of a row that a query does not meet it is no matter what it holds; one that does has a weight that is NaN.
fn segment_row(n: u32, head: u32, g: u32) -> vec4<f32> {
    return finite(load_segments(segment_rows(n, head) + 4u * g, HEAD_DIM - 4u * g));
}

// The row of e that the pairs read: its first element.
fn at_segments(pairs: Pairs) -> vec4<u32> {
    let place = vec4(segments_of_keys(pairs.batch)) + pairs.j;
    let keys = vec4(segments[place.x], segments[place.y], segments[place.z], segments[place.w]);
    let same = keys == vec4(segments[segments_of_queries(pairs.batch) + pairs.i]);
    return select(vec4(segment_rows(2u, pairs.head)), vec4(segment_rows(1u, pairs.head)), same);
}

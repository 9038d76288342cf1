// Segments in a tile of the attention kernel, whose rows are queries.

// The factor of these is in them: of the lane's 4 queries, for keys of their segment and of others, and what segment is theirs.
var<private> same_segment: vec4<f32>;
var<private> other_segment: vec4<f32>;
var<private> own_segment: vec4<f32>;

// The same of the lane's other 4 queries: see tile/staged.wgsl.
struct SegmentsOfRows { same: vec4<f32>, other: vec4<f32>, own: vec4<f32> }
var<private> others_segments: SegmentsOfRows;

fn turn_segments() {
    let own = SegmentsOfRows(same_segment, other_segment, own_segment);
    same_segment = others_segments.same;
    other_segment = others_segments.other;
    own_segment = others_segments.own;
    others_segments = own;
}

fn begin_segments(at: Head, lane: Lane) {
    let a = segments_of_row(at, lane.r);
    let b = segments_of_row(at, lane.r + LANES_R);
    let c = segments_of_row(at, lane.r + 2u * LANES_R);
    let d = segments_of_row(at, lane.r + 3u * LANES_R);
    same_segment = vec4(a.x, b.x, c.x, d.x);
    other_segment = vec4(a.y, b.y, c.y, d.y);
    own_segment = vec4(a.z, b.z, c.z, d.z);
}

// The two numbers of a row of the tile, and its segment.
fn segments_of_row(at: Head, row: u32) -> vec3<f32> {
    let own = min(at.first_row + row, params.kernel.q_count - 1u);
    let head = head_of(at, own);
    var sums = vec2(0.0);
    for (var g = 0u; g < HEAD_GROUPS; g++) { sums = segment_products(head, g, query(at, row, g), sums); }
    return vec3(sums, segments[segments_of_queries(at.batch) + query_at(at, own)]);
}

// The products of the lane's 4 queries and 4 keys, with those of the queries and their rows of e.
fn segmented(at: Head, lane: Lane, tile: KeyTile, s: Scores) -> Scores {
    // Always so, as in relative_pairs.wgsl.
    if (tile.count == 0u) { return s; }
    let key = tile.first + lane.c;
    let j = vec4(key_at(at, key), key_at(at, key + LANES_C), key_at(at, key + 2u * LANES_C), key_at(at, key + 3u * LANES_C));
    let place = vec4(segments_of_keys(at.batch)) + j;
    let keys = vec4(segments[place.x], segments[place.y], segments[place.z], segments[place.w]);
    return Scores(s.a + row_segments(keys, 0u), s.b + row_segments(keys, 1u),
                  s.c + row_segments(keys, 2u), s.d + row_segments(keys, 3u));
}

fn row_segments(keys: vec4<f32>, k: u32) -> vec4<f32> {
    return select(vec4(other_segment[k]), vec4(same_segment[k]), keys == vec4(own_segment[k]));
}

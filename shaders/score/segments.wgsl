// Segments: scale (q_i + s_h) . e_h, where e_h is one row for keys of the query's segment and another for all others. Part of
// the product, and so below every other term. A query has two such numbers, made once; the keys only choose.

// The factor of these is in them: of the lane's 4 queries, for keys of their segment and of others, and what segment is theirs.
var<private> same_segment: vec4<f32>;
var<private> other_segment: vec4<f32>;
var<private> own_segment: vec4<f32>;

// Where the parts of `segments` begin: s [H, d], e [2, H, d], the queries' segments [B, Lq], the keys' [B, Lk].
fn segment_rows(n: u32, head: u32) -> u32 { return (n * params.kernel.heads + head) * HEAD_DIM; }
fn segments_of_queries(batch: u32) -> u32 { return segment_rows(3u, 0u) + batch * params.kernel.q_len; }
fn segments_of_keys(batch: u32) -> u32 { return segments_of_queries(params.kernel.batch) + batch * params.kernel.kv_len; }

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
    var same = 0.0;
    var other = 0.0;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let count = HEAD_DIM - 4u * g;
        let q = (query(at, row, g) + load_segments(segment_rows(0u, head) + 4u * g, count)) * params.kernel.q_scale;
        same = segment_dot(q, load_segments(segment_rows(1u, head) + 4u * g, count), same);
        other = segment_dot(q, load_segments(segment_rows(2u, head) + 4u * g, count), other);
    }
    return vec3(same, other, segments[segments_of_queries(at.batch) + query_at(at, own)]);
}

fn segment_dot(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
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

// Segments (score/segments.wgsl): the row's two numbers, for keys of its segment and of others; and its segment.

var<private> own_segments: vec2<f32>;
var<private> own_segment: f32;

fn begin_segments(at: Head) {
    own_segments = vec2(0.0);
    for (var g = 0u; g < HEAD_GROUPS; g++) { own_segments = segment_products(at.head, g, query(g), own_segments); }
    own_segment = segments[segments_of_queries(at.batch) + own_i];
}

fn segmented(at: Head, j: vec4<u32>, s: vec4<f32>) -> vec4<f32> {
    let place = vec4(segments_of_keys(at.batch)) + j;
    let keys = vec4(segments[place.x], segments[place.y], segments[place.z], segments[place.w]);
    return s + select(vec4(own_segments.y), vec4(own_segments.x), keys == vec4(own_segment));
}

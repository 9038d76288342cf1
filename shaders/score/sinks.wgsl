// One more logit per row, without a value: the rows begin with it, in the first split of the first part.

@group(0) @binding(BINDING_sinks) var<storage, read> sinks: array<f32>;         // [H]

fn begin_sums(at: Head, lane: Lane) {
    if (ACCUMULATE || at.split > 0u) { return; }
    let row = at.first_row + lane.r;
    let x = vec4(sinks[head_of(at, row)], sinks[head_of(at, row + LANES_R)],
                 sinks[head_of(at, row + 2u * LANES_R)], sinks[head_of(at, row + 3u * LANES_R)]);
    // By the bits: compilers may take for granted that numbers are finite. Minus infinity is no sink.
    let none = bitcast<vec4<u32>>(x) == vec4(0xff800000u);
    m = select(x, vec4(DROPPED), none);
    // A row's lanes share its maximum; of its sum each has a part.
    l = select(vec4(0.0), vec4(UNIT), vec4(lane.c == 0u) & !none);
    strange_rows = not_finite(x) & !none;
}

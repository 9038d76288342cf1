// Integers of numbers, a word of 4 or 8 per lane:
//
//     q = clamp(round(x / scale) + zero_point)          round to nearest, ties to even
//
// or with x (1 / scale), as the rule has it: the last bits differ. What is behind the end of a row is 0.

@group(0) @binding(BINDING_words) var<storage, read_write> words: array<u32>;
@group(0) @binding(BINDING_scales) var<storage, read> scales: array<f32>;

const LANES = 64u;

@compute @workgroup_size(LANES)
fn quantize(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let n = work * LANES + lane;
    let row = n / params.row_words;
    if (row >= params.rows) { return; }
    let first = n % params.row_words * (32u / BITS);
    var word = 0u;
    for (var part = 0u; part < 8u / BITS; part++) {
        let k = first + 4u * part;
        if (k < params.inner) { word |= packed(integers(row, k, params.inner - k)) << (16u * part); }
    }
    words[n] = word;
}

// 4 elements of a row, those past `count` 0.
fn integers(row: u32, k: u32, count: u32) -> vec4<i32> {
    let at = scale_at(row, k);
    let x = load_x(row * params.inner + k, count);
    var steps = x / scales[at];
    if (MULTIPLIES) { steps = x * (1.0 / scales[at]); }
    // Far outside of every type is far enough, and within i32.
    let q = vec4<i32>(clamp(round(steps), vec4(-1024.0), vec4(1024.0))) + vec4(zero_point_of_x(at));
    return select(vec4(0), clamp(q, vec4(params.low), vec4(params.high)), vec4(0u, 1u, 2u, 3u) < vec4(count));
}

// Their bits, in the lowest of a word.
fn packed(q: vec4<i32>) -> u32 {
    let bits = (bitcast<vec4<u32>>(q) & vec4((1u << BITS) - 1u)) << (vec4(0u, 1u, 2u, 3u) * BITS);
    return bits.x | bits.y | bits.z | bits.w;
}

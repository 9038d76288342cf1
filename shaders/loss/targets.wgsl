// One element is wanted, or, smoothed, a little of all (Szegedy 2016, section 7): q_i = at_target [i = t] + at_all. A target past the row's end
// makes the row NaN.

struct WantedParams {
    may_ignore: u32,        // whether rows of target `ignored` are left out
    ignored: u32,
    at_target: f32,
    at_all: f32,
}

@group(0) @binding(BINDING_targets) var<storage, read> targets: array<u32>;       // [rows]

var<workgroup> row_target: array<u32, 1>;

alias Wanted = u32;     // the target

// The same for all lanes, so that all of them may stay away from a barrier.
fn wanted_of(lane: u32, row: u32) -> Wanted {
    if (lane == 0u) { row_target[0] = targets[row]; }
    return workgroupUniformLoad(&row_target[0]);
}

fn is_left_out(wanted: Wanted) -> bool {
    return params.wanted.may_ignore != 0u && wanted == params.wanted.ignored;
}

fn is_nothing(wanted: Wanted) -> bool { return wanted >= params.kernel.width; }

fn scaled(d: vec4<f32>) -> vec4<f32> { return d; }

// q of 4 elements from c on.
fn weights_wanted(wanted: Wanted, c: u32) -> vec4<f32> {
    let is_target = vec4(c) + vec4(0u, 1u, 2u, 3u) == vec4(wanted);
    return select(vec4(0.0), vec4(params.wanted.at_target), is_target) + params.wanted.at_all;
}

fn beyond(wanted: Wanted, c: u32, d: vec4<f32>) -> vec4<f32> { return d; }

fn loss_of(wanted: Wanted, l: f32, gaps: f32) -> f32 { return log(l) + gaps; }

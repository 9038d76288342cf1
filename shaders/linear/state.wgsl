// What earlier calls left of their keys, and what this one leaves: per head the sums of linear/states.wgsl, then (top, 1 once a key is in them, 0, 0).
// Zeros are the state of no key. A call that is not CARRIED starts from that, whatever is there.

@group(0) @binding(BINDING_state) var<storage, read_write> state: array<vec4<f32>>;    // [B, Hkv, width + 1]

fn sums_before(line: u32, width: u32, e: u32) -> vec4<f32> {
    if (!CARRIED) { return vec4(0.0); }
    return state[line * (width + 1u) + e];
}

fn top_before(line: u32, width: u32) -> f32 {
    if (!CARRIED) { return DROPPED; }
    let end = state[line * (width + 1u) + width];
    return select(end.x, DROPPED, end.y == 0.0);
}

fn leave_state(line: u32, width: u32, e: u32, sums: vec4<f32>, top: f32) {
    state[line * (width + 1u) + e] = sums;
    if (e == 0u) { state[line * (width + 1u) + width] = select(vec4(top, 1.0, 0.0, 0.0), vec4(0.0), top == DROPPED); }
}

// LSTM (Hochreiter 1997, with the forget gate of Gers 2000), gates in the order i, f, g, o:
//
//     c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)        h_t = sigmoid(o) tanh(c_t)
//
// `c_n` holds c from step to step: who writes an element of it is the only one to read it.

fn next(at: Place, item: u32, unit: u32, inputs: mat4x4<f32>, own: mat4x4<f32>) -> vec4<f32> {
    let kept = sigmoid(inputs[1] + own[1]) * c_before(at, item, unit);
    let c = kept + sigmoid(inputs[0] + own[0]) * limited(inputs[2] + own[2]);
    store_c_n(state_of(item) + unit, params.kernel.hidden - unit, c);
    return sigmoid(inputs[3] + own[3]) * limited(c);
}

fn c_before(at: Place, item: u32, unit: u32) -> vec4<f32> {
    let count = params.kernel.hidden - unit;
    if (at.t == 0u) { return load_c0(state_of(item) + unit, count); }
    return load_c_n(state_of(item) + unit, count);
}

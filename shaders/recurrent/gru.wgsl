// GRU (Cho 2014), gates in the order r, z, n; the reset gate scales the product, after its bias, as cuDNN and PyTorch have it:
//
//     n = tanh(x_n + sigmoid(r) (W_hn h + b_hn))        h_t = (1 - sigmoid(z)) n + sigmoid(z) h_{t-1}

fn next(at: Place, item: u32, unit: u32, inputs: mat4x4<f32>, own: mat4x4<f32>) -> vec4<f32> {
    let z = sigmoid(inputs[1] + own[1]);
    let n = limited(inputs[2] + sigmoid(inputs[0] + own[0]) * own[2]);
    return (1.0 - z) * n + z * h_before(at, item, unit);
}

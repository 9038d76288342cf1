"""Golden cases of recurrent networks, made with PyTorch: `python golden/make_recurrent.py golden`, with torch, numpy and safetensors installed.

Each module computes in f64, from tensors that f32 holds, and what it gives is rounded to f32 once: `expected_abs_error` is that rounding.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

MODULES = {
    "rnn_tanh": lambda **sizes: torch.nn.RNN(nonlinearity="tanh", **sizes),
    "rnn_relu": lambda **sizes: torch.nn.RNN(nonlinearity="relu", **sizes),
    "lstm": torch.nn.LSTM,
    "gru": torch.nn.GRU,
}

# name, cell, batch, steps, input, hidden, layers, bidirectional, bias, initial, steps_first
CASES = [
    ("recurrent_rnn_tanh_b3_t9_i5_h7", "rnn_tanh", 3, 9, 5, 7, 1, False, True, True, False),
    ("recurrent_rnn_relu_b2_t6_i4_h10_nobias", "rnn_relu", 2, 6, 4, 10, 1, False, False, False, False),
    ("recurrent_lstm_b1_t17_i9_h13", "lstm", 1, 17, 9, 13, 1, False, True, False, False),
    ("recurrent_lstm_b4_t12_i6_h16_state_steps_first", "lstm", 4, 12, 6, 16, 1, False, True, True, True),
    ("recurrent_lstm_b2_t8_i5_h6_l2_bidirectional", "lstm", 2, 8, 5, 6, 2, True, True, True, False),
    ("recurrent_gru_b3_t11_i8_h12_state", "gru", 3, 11, 8, 12, 1, False, True, True, False),
    ("recurrent_gru_b2_t7_i3_h5_l2_bidirectional_nobias", "gru", 2, 7, 3, 5, 2, True, False, False, False),
]


def case(seed, name, cell, batch, steps, inputs, hidden, layers, bidirectional, bias, initial, steps_first):
    torch.manual_seed(seed)
    module = MODULES[cell](
        input_size=inputs,
        hidden_size=hidden,
        num_layers=layers,
        bidirectional=bidirectional,
        bias=bias,
        batch_first=not steps_first,
    ).double()
    with torch.no_grad():
        for weight in module.parameters():
            # Past PyTorch's range, so that gates are neither all open nor all shut; then to what f32 holds.
            weight.copy_((2 * weight).float())
    directions = 2 if bidirectional else 1
    sizes = (steps, batch, inputs) if steps_first else (batch, steps, inputs)
    tensors = {"x": torch.randn(sizes)}
    state = None
    if initial:
        names = ["h0", "c0"] if cell == "lstm" else ["h0"]
        for start in names:
            tensors[start] = torch.randn(layers * directions, batch, hidden)
        state = tuple(tensors[start].double() for start in names)
        state = state if cell == "lstm" else state[0]
    with torch.no_grad():
        out, last = module(tensors["x"].double(), state)
    expected = {"out": out}
    expected |= {"h_n": last[0], "c_n": last[1]} if cell == "lstm" else {"h_n": last}
    # As they are named there: weight_ih_l0, weight_ih_l0_reverse, ..
    tensors |= {weight_name: weight.float() for weight_name, weight in module.state_dict().items()}
    tensors |= {tensor: values.float() for tensor, values in expected.items()}
    errors = {tensor: float((values.float().double() - values).abs().max()) for tensor, values in expected.items()}
    metadata = {
        "op": "recurrent",
        "name": name,
        "source": f"torch {torch.__version__}, {type(module).__name__}, float64",
        "cell": cell,
        "expected_abs_error": errors,
    }
    metadata |= {"steps_first": True} if steps_first else {}
    tensors = {tensor: values.contiguous() for tensor, values in tensors.items()}
    return tensors, {"case": json.dumps(metadata)}


def main(folder):
    for seed, (name, *sizes) in enumerate(CASES):
        tensors, metadata = case(seed, name, *sizes)
        save_file(tensors, Path(folder) / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])

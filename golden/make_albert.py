"""The golden case of ALBERT, made with Hugging Face: `python golden/make_albert.py golden`, with torch, transformers, numpy and safetensors
installed.

The model computes in f64, from weights that f32 holds, and what it gives is rounded to f32 once; `expected_abs_error` is how far a float32
run of the same model may be beside that. Weights are redrawn with unit gain, for Hugging Face's 0.02 makes attention nearly uniform.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

CONFIG = {
    "vocab_size": 60,
    "embedding_size": 12,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_hidden_groups": 2,
    "inner_group_num": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu_new",
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
BATCH, LEN = 2, 20


def redraw(model):
    for name, value in model.named_parameters():
        if "LayerNorm" in name or "layer_norm" in name:
            fresh = torch.randn_like(value) * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        elif value.dim() == 1:
            fresh = torch.randn_like(value) * 0.1
        else:
            gain = 1.0 if "embeddings" in name else value.shape[1] ** -0.5
            fresh = torch.randn_like(value) * gain
        value.data.copy_(fresh.float())


def run(model, inputs, dout):
    model.zero_grad()
    out = model(**inputs, output_hidden_states=True)
    (out.last_hidden_state * dout).sum().backward()
    states = {f"hidden_{n}": state for n, state in enumerate(out.hidden_states)}
    states |= {"last": out.last_hidden_state, "pooled": out.pooler_output}
    states = {name: state.detach() for name, state in states.items()}
    states |= {f"d.{name}": value.grad for name, value in model.named_parameters() if not name.startswith("pooler")}
    return states


def main(folder):
    torch.manual_seed(20)
    config = transformers.AlbertConfig(**CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = transformers.AlbertModel(config).eval()
    redraw(model)
    mask = torch.ones(BATCH, LEN, dtype=torch.long)
    mask[1, 15:] = 0
    inputs = {
        "input_ids": torch.randint(1, CONFIG["vocab_size"], (BATCH, LEN)),
        "attention_mask": mask,
        "token_type_ids": (torch.arange(LEN) > 8).long().repeat(BATCH, 1),
    }
    dout = torch.randn(BATCH, LEN, CONFIG["hidden_size"])
    narrow = {name: value.clone() for name, value in run(model, inputs, dout).items()}
    exact = run(model.double(), inputs, dout.double())
    weights = {f"w.{name}": value.detach().float() for name, value in model.named_parameters()}
    tensors = {name: value.float() for name, value in exact.items()} | weights | {"dout": dout}
    tensors |= {name: value.int() for name, value in inputs.items()}
    errors = {name: float((narrow[name].double() - exact[name]).abs().max()) for name in exact}
    errors["out"] = max(error for name, error in errors.items() if not name.startswith("d."))
    case = {
        "op": "model",
        "family": "albert",
        "name": "e2e_albert",
        "config": CONFIG,
        "expected_abs_error": errors,
        "notes": ["weights were redrawn with unit gain (HF's 0.02 makes attention nearly uniform)"],
        "source": json.dumps({"package": "transformers", "version": transformers.__version__, "class": "AlbertModel"}),
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, Path(folder) / "e2e_albert.safetensors", metadata={"case": json.dumps(case)})


main(sys.argv[1])

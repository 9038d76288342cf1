"""Golden cases of decoding, made with PyTorch: `python golden/make_decode.py golden`, with torch, numpy and safetensors installed.

Each sequence is computed as a whole, in f64, from tensors that f32 holds: `scaled_dot_product_attention` under a mask of what each position sees. What
it gives is rounded to f32 once: `expected_abs_error` is that rounding.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import scaled_dot_product_attention

# New positions by step and sequence.
LENGTHS = [[5, 0, 1], [1, 1, 0], [4, 2, 0], [1, 0, 1], [5, 5, 0], [1, 1, 1], [3, 0, 0]]
TOKENS = [[5, 2], [5, 5]] + 7 * [[1, 1]] + [[4, 0], [1, 5], [3, 1], [1, 1]]
EMPTY_LSE = torch.finfo(torch.float32).min

CASES = {
    "decode_b3_h4kv2_d8_lengths": {"counts": LENGTHS, "d": 8, "dv": 12, "capacity": 24},
    "decode_b2_h4kv2_d12_rotary8_window6_sinks2": {
        "counts": TOKENS, "d": 12, "dv": 8, "capacity": 32, "rotary_dim": 8, "window": 6, "sinks": 2, "scale": 0.5,
    },
}


def turned(x, cos, sin):
    """Elements c and c + r / 2 of the first r turn by the angles of their position (Su 2021, eq. 34, halves split)."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


def seen(length, window, sinks):
    """What position i sees: itself and those before it, in a window all the first ones and the last."""
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    near = torch.ones(length, length, dtype=torch.bool) if window is None else j >= i - window
    return (j <= i) & (near | (j < sinks))


def case(seed, name, counts, d, dv, capacity, rotary_dim=None, window=None, sinks=0, scale=None, heads=4, kv_heads=2):
    torch.manual_seed(seed)
    counts = torch.tensor(counts, dtype=torch.int32)
    lengths = counts.sum(dim=0).tolist()
    batch, longest = len(lengths), max(lengths)
    tensors = {
        "q": torch.randn(batch, heads, longest, d),
        "k": torch.randn(batch, kv_heads, longest, d),
        "v": torch.randn(batch, kv_heads, longest, dv),
        "counts": counts,
    }
    if rotary_dim:
        angles = torch.arange(capacity)[:, None] * 10000.0 ** (-torch.arange(0, rotary_dim, 2) / rotary_dim)
        tensors |= {"cos": angles.double().cos().float(), "sin": angles.double().sin().float()}
    out = torch.zeros(batch, heads, longest, dv, dtype=torch.float64)
    lse = torch.full((batch, heads, longest), EMPTY_LSE, dtype=torch.float64)
    for b, length in enumerate(lengths):
        q, k, v = [tensors[one][b : b + 1, :, :length].double() for one in "qkv"]
        if rotary_dim:
            cos, sin = [tensors[table][:length].double() for table in ("cos", "sin")]
            q, k = turned(q, cos, sin), turned(k, cos, sin)
        mask = seen(length, window, sinks)
        out[b, :, :length] = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)[0]
        scores = q @ k.repeat_interleave(heads // kv_heads, dim=1).mT * (scale or d**-0.5)
        lse[b, :, :length] = scores.masked_fill(~mask, -torch.inf).logsumexp(dim=-1)[0]
    tensors |= {"out": out.float(), "lse": lse.float()}
    metadata = {
        "op": "decode",
        "name": name,
        "source": f"torch {torch.__version__}, scaled_dot_product_attention, float64",
        "capacity": capacity,
        "expected_abs_error": {"out": float((out.float().double() - out).abs().max())},
    }
    chosen = {"scale": scale, "window": window, "sinks": sinks, "rotary_dim": rotary_dim}
    metadata |= {key: value for key, value in chosen.items() if value}
    return tensors, {"case": json.dumps(metadata)}


def main(folder):
    for seed, (name, sizes) in enumerate(CASES.items()):
        tensors, metadata = case(seed, name, **sizes)
        save_file(tensors, Path(folder) / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])

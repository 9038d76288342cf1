"""Golden cases of packed sequences, made with PyTorch: `python golden/make_packed.py golden`, with torch, numpy and safetensors installed.

Each sequence is computed by itself, in f64, from tensors that f32 holds: `scaled_dot_product_attention` under a mask of what each query sees, where both
ends of a sequence are together (`causal_lower_right`, and FlashAttention's `cu_seqlens_q` and `cu_seqlens_k`). What it gives is rounded to f32 once:
`expected_abs_error` is that rounding. Rows that see no key, and rows behind the last sequence, are 0.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

EMPTY_LSE = torch.finfo(torch.float32).min

# Lengths of queries and of keys by sequence: one without queries, one without keys, more queries than keys; rows that are nobody's behind them.
CASES = {
    "packed_b6_h4kv2_d8_causal": {
        "lengths": [(3, 3), (0, 4), (2, 0), (5, 2), (1, 19), (7, 9)], "rows": (20, 40), "d": 8, "dv": 12, "after": 0,
    },
    "packed_b4_h6kv2_d12_window": {
        "lengths": [(4, 11), (9, 6), (1, 1), (8, 15)], "rows": (22, 33), "d": 12, "dv": 8, "heads": 6,
        "before": 3, "after": 2, "sinks": 2, "scale": 0.5,
    },
    "packed_b3_h3_d16_all": {"lengths": [(6, 7), (1, 300), (5, 2)], "rows": (12, 310), "d": 16, "dv": 16, "heads": 3, "kv_heads": 3},
}


def seen(n, length, before, after, sinks):
    """What query i of n sees among `length` keys: those near its position, and the first ones, up to `after` behind it."""
    p, j = torch.arange(n)[:, None] + length - n, torch.arange(length)[None, :]
    near = torch.ones(n, length, dtype=torch.bool) if before is None else j >= p - before
    ahead = torch.ones(n, length, dtype=torch.bool) if after is None else j <= p + after
    return ahead & (near | (j < sinks))


def attended(q, k, v, mask, scale):
    """out and lse of one sequence, [H, n, ..]: PyTorch's attention where a row sees a key."""
    out = q.new_zeros(*q.shape[:2], v.shape[2])
    lse = q.new_full(q.shape[:2], EMPTY_LSE)
    if not mask.any():
        return out, lse
    rows = mask.any(dim=1)
    q, mask = q[:, rows], mask[rows]
    out[:, rows] = scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, scale=scale, enable_gqa=True)[0]
    scores = q @ k.repeat_interleave(q.shape[0] // k.shape[0], dim=0).mT * (scale or q.shape[2] ** -0.5)
    lse[:, rows] = scores.masked_fill(~mask, -torch.inf).logsumexp(dim=-1)
    return out, lse


def case(seed, name, lengths, rows, d, dv, heads=4, kv_heads=2, before=None, after=None, sinks=0, scale=None):
    torch.manual_seed(seed)
    offsets = torch.tensor([(0, 0), *lengths], dtype=torch.int32).cumsum(dim=0, dtype=torch.int32)
    tensors = {
        "q": torch.randn(rows[0], heads, d),
        "k": torch.randn(rows[1], kv_heads, d),
        "v": torch.randn(rows[1], kv_heads, dv),
        "cu_seqlens_q": offsets[:, 0].contiguous(),
        "cu_seqlens_k": offsets[:, 1].contiguous(),
    }
    out = torch.zeros(rows[0], heads, dv, dtype=torch.float64)
    lse = torch.full((heads, rows[0]), EMPTY_LSE, dtype=torch.float64)
    for (n, length), (from_q, from_k) in zip(lengths, offsets.tolist()):
        q = tensors["q"][from_q : from_q + n].double().transpose(0, 1)
        k, v = [tensors[one][from_k : from_k + length].double().transpose(0, 1) for one in "kv"]
        mask = seen(n, length, before, after, sinks)
        if (before, after) == (None, 0) and 0 < n <= length:
            assert torch.equal(mask, causal_lower_right(n, length)._materialize().bool())
        own_out, own_lse = attended(q, k, v, mask, scale)
        out[from_q : from_q + n], lse[:, from_q : from_q + n] = own_out.transpose(0, 1), own_lse
    tensors |= {"out": out.float(), "lse": lse.float()}
    metadata = {
        "op": "packed",
        "name": name,
        "source": f"torch {torch.__version__}, scaled_dot_product_attention, float64",
        "expected_abs_error": {"out": float((out.float().double() - out).abs().max())},
    }
    chosen = {"scale": scale, "before": before, "after": after, "sinks": sinks or None}
    metadata |= {key: value for key, value in chosen.items() if value is not None}
    return tensors, {"case": json.dumps(metadata)}


def main(folder):
    for seed, (name, sizes) in enumerate(CASES.items()):
        tensors, metadata = case(seed, name, **sizes)
        save_file(tensors, Path(folder) / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])

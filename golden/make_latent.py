"""Golden cases of latent attention, made with NumPy: `python golden/make_latent.py golden`, with numpy and safetensors installed.

A token has one row, whose first elements turn by the rotary embedding and are key alone, and whose others are key and value (DeepSeek-V2, 2024, in
its absorbed form). Each sequence is computed as a whole, in f64, from tensors that f32 holds, and rounded to f32 once: `expected_abs_error` is that
rounding.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# New positions by step and sequence.
COUNTS = [[5, 2], [1, 0], [1, 1], [3, 4], [1, 0]]
HEADS, DIM, START, CAPACITY = 4, 40, 8, 16
NAME = f"decode_b2_h{HEADS}_d{DIM}_values{START}_rotary{START}"


def turned(x, angles):
    """Elements 2 c and 2 c + 1 of the first ones turn by the angles of their position (Su 2021, eq. 34)."""
    x = x.copy()
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = x[..., 0:START:2].copy(), x[..., 1:START:2].copy()
    x[..., 0:START:2], x[..., 1:START:2] = a * cos - b * sin, b * cos + a * sin
    return x


def main(folder):
    draw = np.random.default_rng(1)
    counts = np.array(COUNTS, dtype=np.int32)
    lengths = counts.sum(axis=0)
    batch, longest = len(lengths), int(lengths.max())
    q = draw.standard_normal((batch, HEADS, longest, DIM)).astype(np.float32)
    k = draw.standard_normal((batch, 1, longest, DIM)).astype(np.float32)
    angles = np.arange(CAPACITY)[:, None] * 10000.0 ** (-np.arange(0, START, 2) / START)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    # The angles that those tables stand for, and their lengths, which are not quite 1.
    size, exact = np.hypot(cos.astype(np.float64), sin), np.arctan2(sin.astype(np.float64), cos)
    out = np.zeros((batch, HEADS, longest, DIM - START))
    lse = np.full((batch, HEADS, longest), np.finfo(np.float32).min, dtype=np.float64)
    for b, n in enumerate(lengths):
        rows, queries = k[b, 0, :n].astype(np.float64), q[b, :, :n].astype(np.float64)
        values = rows[:, START:]
        keys, queries = turned(rows, exact[:n]), turned(queries, exact[:n])
        for x in (keys, queries):
            x[..., :START] *= np.repeat(size[:n], 2, axis=-1)
        scores = np.einsum("hid,jd->hij", queries, keys) / np.sqrt(DIM)
        scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        most = scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores - most)
        sums = weights.sum(axis=-1, keepdims=True)
        out[b, :, :n] = (weights / sums) @ values
        lse[b, :, :n] = (most + np.log(sums))[..., 0]
    tensors = {"q": q, "k": k, "counts": counts, "cos": cos, "sin": sin}
    tensors |= {"out": out.astype(np.float32), "lse": lse.astype(np.float32)}
    metadata = {
        "op": "decode",
        "name": NAME,
        "source": f"numpy {np.__version__}, latent attention in its absorbed form, float64",
        "capacity": CAPACITY,
        "rotary_dim": START,
        "interleaved": True,
        "values_in_keys": START,
        "expected_abs_error": {"out": float(np.abs(tensors["out"] - out).max())},
    }
    save_file(tensors, Path(folder) / f"{NAME}.safetensors", {"case": json.dumps(metadata)})


if __name__ == "__main__":
    main(*sys.argv[1:])

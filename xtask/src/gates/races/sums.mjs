// Small cases of gradients on the staged tile, of the weights of chosen rows and of linear attention, as those of cases.mjs.
import { dot, numbers, range, sum, words } from './numbers.mjs';

const positive = (count, seed) => numbers(count, seed).map((x) => 0.1 + Math.abs(x));

/** A block of 32 columns that 8 rows see whole, and one behind it of which they see some; the next rows see that one alone. */
function blockMask() {
  const tile = words(8, 4, 2 ** 32);
  const blocks = [[{ block: 0 }, { block: 1, tile: 0 }], [{ block: 1, tile: 0 }]];
  const runs = blocks.flat().flatMap(({ block, tile: partial }) => [block, 1, partial ?? 0xffffffff]);
  const table = [0, 0, 2, 0, 3, 0];
  return {
    mask: Uint32Array.from([...table, ...runs, ...tile]),
    keep: { rows_at: 0, runs_at: table.length, tiles_at: table.length + runs.length },
    seen: (row) => blocks[row >> 3].flatMap(({ block, tile: partial }) => range(32)
      .filter((t) => partial === undefined || (tile[row & 7] >>> t) & 1).map((t) => 32 * block + t)),
  };
}

/** Queries by keys, with the weights and the derivatives of their pairs, and what both kinds of passes are told. */
function pairs(queries, keys, { bias }) {
  const [d, dv] = [8, 12];
  const [q, k, v, dout] = [numbers(queries * d, 1), numbers(keys * d, 2), numbers(keys * dv, 3), numbers(queries * dv, 5)];
  const scale = Math.SQRT1_2 / 2;
  const records = Float32Array.from(range(4 * queries), (n) => [3, 0.25, 0.125 * (n % 7), 0][n % 4]);
  const base = bias ? Math.E : 2;
  const of = (i, j) => {
    const product = scale * dot(d, (e) => q[i * d + e] * k[j * d + e]);
    const e = base ** ((bias ? product + bias[j] : product * Math.LOG2E) - records[4 * i]);
    const dp = dot(dv, (c) => dout[i * dv + c] * v[j * dv + c]);
    return { p: records[4 * i + 1] * e, ds: e * (records[4 * i + 1] * dp - records[4 * i + 2]) };
  };
  const kernel = {
    row_tiles: 2, end_work: 2, tiles_per_split: 99, heads: 1, heads_per_kv_head: 1, q_len: queries, kv_len: keys, scale,
    q_scale: bias ? scale : scale * Math.LOG2E, records: queries, batch: 1,
  };
  const rows = { q: { row: d }, k: { row: d }, v: { row: dv }, dout: { row: dv } };
  return { d, dv, scale, of, kernel, rows, tensors: { q, k, v, dout, records } };
}

// 13 keys by 64 queries, of which the mask has the keys as its rows.
function keyGradients() {
  const { mask, keep, seen } = blockMask();
  const { d, dv, scale, of, kernel, rows, tensors } = pairs(64, 13, {});
  const { q, dout } = tensors;
  const dk = Float32Array.from(range(13 * d), (n) => {
    const j = Math.floor(n / d);
    return scale * sum(seen(j).map((i) => of(i, j).ds * q[i * d + (n % d)]));
  });
  const values = Float32Array.from(range(13 * dv), (n) => {
    const j = Math.floor(n / dv);
    return sum(seen(j).map((i) => of(i, j).p * dout[i * dv + (n % dv)]));
  });
  return {
    groups: [2, 1, 1],
    params: { kernel: { ...kernel, q_count: 13, k_count: 64 }, keep, ...rows, dk: { row: d }, dv: { row: dv } },
    buffers: { ...tensors, mask, dk: dk.map(() => 0), dv: values.map(() => 0) },
    expected: { dk, dv: values },
  };
}

// 13 queries by 64 keys, whose gradient of the bias all queries share; a copy per row tile.
function biasGradient() {
  const { mask, keep, seen } = blockMask();
  const bias = numbers(64, 6);
  const { of, kernel, rows, tensors } = pairs(13, 64, { bias });
  const sums = new Float32Array(2 * 64);
  for (const i of range(13)) seen(i).forEach((j) => (sums[64 * (i >> 3) + j] += of(i, j).ds));
  return {
    groups: [2, 1, 1],
    params: {
      kernel: { ...kernel, q_count: 13, k_count: 64 }, keep, ...rows, bias: { key: 1 },
      term: { tile_step: 1, head_step: 2, batch_step: 2, batch: 1, apart: 1, copies: 2, len: 64 },
    },
    buffers: { ...tensors, mask, bias, sums: sums.map(() => 0) },
    expected: { sums },
  };
}

// Rows 3 and 9 of 13, in the other order.
function chosenRows() {
  const [d, queries, keys, chosen] = [8, 13, 64, [9, 3]];
  const { mask, keep, seen } = blockMask();
  const [q, k] = [numbers(queries * d, 1), numbers(keys * d, 2)];
  const scale = (Math.SQRT1_2 / 2) * Math.LOG2E;
  const scores = (i) => seen(i).map((j) => ({ j, s: scale * dot(d, (e) => q[i * d + e] * k[j * d + e]) }));
  const state = Float32Array.from(range(queries).flatMap((i) => {
    const m = Math.max(...scores(i).map(({ s }) => s));
    return [m, sum(scores(i).map(({ s }) => 2 ** (s - m)))];
  }));
  const bits = (x) => new Uint32Array(Float32Array.of(x).buffer)[0];
  const summaries = Uint32Array.from(chosen.flatMap((i) => {
    const weights = scores(i).map(({ j, s }) => ({ j, p: 2 ** (s - state[2 * i]) / state[2 * i + 1] }));
    const best = weights.toSorted((a, b) => b.p - a.p).slice(0, 2);
    const entropy = -sum(weights.map(({ p }) => p * Math.log(p)));
    return [bits(entropy), weights.length, ...best.flatMap(({ j, p }) => [j, bits(p)])];
  }));
  return {
    groups: [2, 1, 1],
    params: {
      kernel: {
        end_work: 2, tiles_per_split: 99, batch: 1, heads: 1, heads_per_kv_head: 1, q_len: queries, kv_len: keys, q_count: queries,
        k_count: keys, q_scale: scale,
      },
      keep, q: { row: d }, k: { row: d },
    },
    buffers: {
      q, k, mask, state, chosen: Uint32Array.from(chosen.flatMap((i, n) => [0, 0, i, n])), summaries: summaries.map(() => 0),
    },
    expected: { summaries },
  };
}

// 13 positions in chunks of 8, with what earlier chunks have left; d = 8 features.
function linearOutputs() {
  const [len, chunk, features, dv, eps] = [13, 8, 8, 8, 0.01];
  const [q, k, v] = [positive(len * features, 1), positive(len * features, 2), numbers(len * dv, 3)];
  // Per feature the sums of the columns and, as the first of 4 numbers, that of the features.
  const row = dv + 4;
  const states = positive(2 * features * row, 4);
  const out = Float32Array.from(range(len * dv), (n) => {
    const [i, column] = [Math.floor(n / dv), n % dv];
    const first = Math.floor(i / chunk) * chunk;
    const before = (c) => dot(features, (f) => q[i * features + f] * states[((first / chunk) * features + f) * row + c]);
    const own = range(i - first + 1).map((t) => first + t);
    const weights = own.map((j) => dot(features, (f) => q[i * features + f] * k[j * features + f]));
    const above = before(column) + sum(own.map((j, t) => weights[t] * v[j * dv + column]));
    return above / (before(dv) + sum(weights) + eps * dot(features, (f) => q[i * features + f]));
  });
  return {
    groups: [2, 1, 1],
    params: {
      kernel: {
        end_work: 2, tiles: 2, heads: 1, heads_per_kv_head: 1, q_len: len, kv_len: len, chunks: 2, groups: features / 4,
        denominator_eps: eps, kv_heads_per_head: 1,
      },
      v: { row: dv }, out: { row: dv },
    },
    buffers: { q_phi: q, k_phi: k, states, v, out: out.map(() => 0) },
    expected: { out },
  };
}

/** As `cases` of cases.mjs. */
export const sums = {
  'attention dk dv': keyGradients(),
  'attention d bias': biasGradient(),
  'attention chosen rows': chosenRows(),
  'linear outputs': linearOutputs(),
};

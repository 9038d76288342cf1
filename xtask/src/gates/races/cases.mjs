// Small cases of kernels with workgroup memory (all but UNCOVERED in ../races.mjs), each with what it must compute: a run
// that went astray proves nothing about races. The names are those of tools/gates/src/small.rs.

import { dot, numbers, range, sum, words } from './numbers.mjs';
import { sums } from './sums.mjs';

// 13 queries by 64 keys: the first row tile sees a full block and a partial one, the second a partial one.
function attention(merging) {
  const [rows, keys, d, dv] = [13, 64, 8, 12];
  const [q, k, v] = [numbers(rows * d, 1), numbers(keys * d, 2), numbers(keys * dv, 3)];
  const tile = words(8, 4, 2 ** 32);
  const blocks = [[{ block: 0 }, { block: 1, tile: 0 }], [{ block: 1, tile: 0 }]];
  const runs = blocks.flat().map(({ block, tile }) => [block, 1, tile ?? 0xffffffff]).flat();
  const table = [0, 0, 2, 0, 3, 0];
  const mask = Uint32Array.from([...table, ...runs, ...tile]);
  const scale = Math.SQRT1_2 / 2;
  const before = { out: numbers(rows * dv, 5), m: numbers(rows, 6), l: numbers(rows, 7).map((x) => 1 + Math.abs(x)) };
  const out = new Float32Array(rows * dv);
  const stats = new Float32Array(rows * (merging ? 2 : 1));
  for (const i of range(rows)) {
    const seen = blocks[i >> 3].flatMap(({ block, tile: partial }) => range(32)
      .filter((t) => partial === undefined || (tile[i & 7] >>> t) & 1).map((t) => 32 * block + t));
    const scores = seen.map((j) => scale * Math.LOG2E * dot(d, (e) => q[i * d + e] * k[j * d + e]));
    const own = Math.max(...scores);
    const m = merging ? Math.max(own, before.m[i]) : own;
    const old = merging ? before.l[i] * 2 ** (before.m[i] - m) : 0;
    const p = scores.map((s) => 2 ** (s - m));
    const l = sum(p) + old;
    for (const c of range(dv)) {
      out[i * dv + c] = (sum(seen.map((j, n) => p[n] * v[j * dv + c])) + old * (merging ? before.out[i * dv + c] : 0)) / l;
    }
    if (merging) stats.set([m, l], 2 * i);
    else stats[i] = (m + Math.log2(l)) * Math.LN2;
  }
  const state = Float32Array.from(range(2 * rows), (n) => (n % 2 ? before.l : before.m)[n >> 1]);
  return {
    groups: [2, 1, 1],
    params: {
      kernel: {
        end_work: 2, row_tiles: 2, splits: 1, tiles_per_split: 0xffffffff, batch: 1, heads: 1, heads_per_kv_head: 1, q_len: rows, kv_len: keys, q_count: rows,
        k_count: keys, q_scale: scale * Math.LOG2E,
      },
      keep: { rows_at: 0, runs_at: table.length, tiles_at: table.length + runs.length },
      q: { row: d }, k: { row: d }, v: { row: dv }, out: { row: dv },
    },
    buffers: {
      q, k, v, mask, out: merging ? before.out : out.map(() => 0), ...(merging ? { state } : { lse: stats.map(() => 0) }),
    },
    expected: { out, ...(merging ? { state: stats } : { lse: stats }) },
  };
}

// 9 x 20 by 20 x 12, or fewer rows.
function matmul(weight, bRow, [row_tiles, column_tiles], rows = 9) {
  const [a, b] = [numbers(20 * rows, 1), numbers(240, 2)];
  const out = Float32Array.from(range(12 * rows), (at) => dot(20, (k) => a[Math.floor(at / 12) * 20 + k] * weight(b, k, at % 12)));
  return {
    groups: [row_tiles * column_tiles, 1, 1],
    params: {
      end_work: row_tiles * column_tiles, row_tiles, column_tiles, rows, inner: 20, columns: 12,
      a_row: 20, b_row: bRow, residual_row: 12, out_row: 12,
    },
    buffers: { a, b, out: new Float32Array(12 * rows) },
    expected: { out },
  };
}

const rowsOf = (x, width) => range(x.length / width).map((r) => [...x.slice(r * width, (r + 1) * width)]);
const rowParams = (rows, width) => ({ end_work: rows, rows, width, x_row: width, other_row: width, out_row: width, eps: 1e-5 });

function norm(centered) {
  const [x, weight, bias] = [numbers(2 * 268, 1), numbers(268, 2), numbers(268, 3)];
  const out = rowsOf(x, 268).flatMap((row) => {
    const mean = centered ? sum(row) / 268 : 0;
    const factor = 1 / Math.sqrt(sum(row.map((e) => (e - mean) ** 2)) / 268 + 1e-5);
    return row.map((e, n) => (e - mean) * factor * weight[n] + bias[n]);
  });
  const buffers = { x, weight, bias, out: new Float32Array(2 * 268) };
  return { groups: [2, 1, 1], params: rowParams(2, 268), buffers, expected: { out: Float32Array.from(out) } };
}

function softmax() {
  const x = numbers(2 * 268, 1).map((e) => 3 * e);
  const out = rowsOf(x, 268).flatMap((row) => {
    const total = sum(row.map(Math.exp));
    return row.map((e) => Math.exp(e) / total);
  });
  const buffers = { x, out: new Float32Array(2 * 268) };
  return { groups: [2, 1, 1], params: rowParams(2, 268), buffers, expected: { out: Float32Array.from(out) } };
}

// Three rows, the second of which is left out; the gradient goes over the logits.
function crossEntropy() {
  const x = numbers(3 * 268, 1).map((e) => 3 * e);
  const targets = Uint32Array.from([5, 7, 267]);
  const losses = [];
  const out = rowsOf(x, 268).flatMap((row, r) => {
    const [total, t] = [sum(row.map(Math.exp)), targets[r]];
    losses.push(t === 7 ? 0 : Math.log(total) - 0.75 * row[t] - (0.25 * sum(row)) / 268);
    return row.map((e, n) => (t === 7 ? 0 : 2 * (Math.exp(e) / total - (n === t ? 0.75 : 0) - 0.25 / 268)));
  });
  return {
    groups: [3, 1, 1],
    params: {
      kernel: { end_work: 3, width: 268, x_row: 268, out_row: 268, factor: 2 },
      wanted: { may_ignore: 1, ignored: 7, at_target: 0.75, at_all: 0.25 / 268 },
    },
    buffers: { targets, loss: new Float32Array(3), out: x },
    expected: { loss: Float32Array.from(losses), out: Float32Array.from(out) },
  };
}

// The first step of 2 items of 20 units, from given states.
function recurrent() {
  const h = 20;
  const [inputs, w, bias, h0] = [numbers(2 * h, 1), numbers(h * h, 2), numbers(h, 3), numbers(2 * h, 4)];
  const of = (item, unit) => inputs[item * h + unit] + bias[unit] + dot(h, (k) => w[unit * h + k] * h0[item * h + k]);
  const out = Float32Array.from(range(2 * h), (n) => Math.tanh(of(Math.floor(n / h), n % h)));
  return {
    groups: [5, 1, 1],
    params: {
      kernel: {
        end_work: 5, tiles: 5, unit_tiles: 5, steps: 1, batch: 2, hidden: h, inputs_batch: 1, inputs_step: 1, out_batch: h,
        out_step: h,
      },
    },
    buffers: { inputs, w, bias, h0, out: new Float32Array(2 * h), h_n: new Float32Array(2 * h) },
    expected: { out, h_n: out },
  };
}

// A chunk of 600 elements; its exponent is that of the largest.
function squares() {
  const x = numbers(600, 1);
  const most = Math.max(...x.map(Math.abs));
  const exponent = Math.floor(Math.log2(most));
  const total = dot(600, (n) => (x[n] / 2 ** exponent) ** 2);
  const buffers = { x, partials: new Float32Array(4) };
  return {
    groups: [1, 1, 1], params: { end_work: 1, len: 600, partials_at: 1 }, buffers,
    expected: { partials: Float32Array.from([0, 0, exponent, total]) },
  };
}

// The digit is bits 4 .. 12 of 700 keys, in one block.
const [SHIFT, KEYS] = [4, words(700, 1, 2 ** 16)];
const digits = KEYS.map((key) => (key >>> SHIFT) & 255);
const counted = Uint32Array.from(range(256), (digit) => digits.filter((d) => d === digit).length);
const starting = Uint32Array.from(range(256), (digit) => sum([...counted.slice(0, digit)]));
const sortParams = { end_work: 1, len: 700, blocks: 1, shift: SHIFT, digit_mask: 255 };

function sortCount() {
  const buffers = { keys: KEYS, counts: new Uint32Array(256) };
  return { groups: [1, 1, 1], params: sortParams, buffers, expected: { counts: counted } };
}

// Two blocks, the same twice.
function sortScan() {
  const both = Uint32Array.from([...counted, ...counted]);
  return {
    groups: [1, 1, 1],
    params: { end_work: 1, blocks: 2 },
    buffers: { counts: both, starts: new Uint32Array(256) },
    expected: { counts: Uint32Array.from([...counted.map(() => 0), ...counted]), starts: starting.map((start) => 2 * start) },
  };
}

// 50 positions, d = 36, factors 4 and 8 of the buckets: 2 and 4 columns.
function hash() {
  const [len, d] = [50, 36];
  const [q, projections] = [numbers(len * d, 1), numbers(d * 6, 2)];
  const rotated = (i, column) => dot(d, (e) => q[i * d + e] * projections[e * 6 + column]);
  const best = (i, first, half) => {
    const x = range(half).map((column) => rotated(i, first + column));
    const both = [...x, ...x.map((e) => -e)];
    return both.indexOf(Math.max(...both));
  };
  return {
    groups: [1, 1, 1],
    params: { end_work: 1, row_tiles: 1, heads: 1, len, q_row: d, norm_eps: 1e-6 },
    buffers: { q, projections, buckets: new Uint32Array(len), norms: new Float32Array(len) },
    expected: {
      buckets: Uint32Array.from(range(len), (i) => best(i, 0, 2) + 4 * best(i, 2, 4)),
      norms: Float32Array.from(range(len), (i) => 1 / Math.sqrt(dot(d, (e) => q[i * d + e] ** 2) + 1e-6)),
    },
  };
}

// The last 2 of 300 positions, 2 heads on 1 key head: the 4 rows of a tile, and both chunks of keys in one split.
function decode() {
  const [heads, fresh, keys, capacity, d, dv] = [2, 2, 300, 304, 8, 12];
  const [q, k, v] = [numbers(heads * fresh * d, 1), numbers(capacity * d, 2), numbers(capacity * dv, 3)];
  const scale = (Math.SQRT1_2 / 2) * Math.LOG2E;
  const rows = range(heads * fresh).map((row) => {
    const scores = range(keys - fresh + (row % fresh) + 1).map((j) => scale * dot(d, (e) => q[row * d + e] * k[j * d + e]));
    const m = Math.max(...scores);
    const p = scores.map((s) => 2 ** (s - m));
    return { state: [m, sum(p)], out: range(dv).map((c) => sum(p.map((w, j) => w * v[j * dv + c])) / sum(p)) };
  });
  const [state, merged] = ['state', 'out'].map((name) => Float32Array.from(rows.flatMap((row) => row[name])));
  return {
    groups: [1, 1, 1],
    params: {
      kernel: { end_work: 1, row_tiles: 1, splits: 1, heads, heads_per_kv_head: heads, before: 0x7fffffff, q_scale: scale },
      cache: { capacity, kv_heads: 1, most_new: fresh, batch: 1 },
      q: { head: fresh * d, row: d },
    },
    buffers: {
      q, keys: k, values: v, lengths: Uint32Array.of(keys), state: state.map(() => 0), merged: merged.map(() => 0),
    },
    expected: { state, merged },
  };
}

// Rows of 24, the largest element not in the first lane's group, behind 3 others.
function appendInt8() {
  const [capacity, length, dim] = [6, 3, 24];
  const x = numbers(2 * dim, 1);
  x[17] = -3;
  x[dim + 9] = 2;
  const out = new Uint32Array(capacity * (1 + dim / 4));
  const bits = new DataView(out.buffer);
  rowsOf(x, dim).forEach((row, t) => {
    const at = (length + t) * (4 + dim);
    bits.setFloat32(at, Math.max(...row.map(Math.abs)) / 127, true);
    bits.setUint32(at, (bits.getUint32(at, true) + 0x80) & 0xffffff00, true);
    row.forEach((e, n) => bits.setInt8(at + 4 + n, Math.round(e / bits.getFloat32(at, true)), true));
  });
  return {
    groups: [2, 1, 1],
    params: {
      kernel: { end_work: 2, rows: 2, heads: 1 }, cache: { capacity, kv_heads: 1, most_new: 2, batch: 1 }, x: { row: dim },
    },
    buffers: { x, lengths: Uint32Array.of(length), out: out.map(() => 0) },
    expected: { out },
  };
}

/** `params`, `buffers` and `expected` by name. A dispatch is of `groups` workgroups. */
export const cases = {
  attention: attention(false),
  'attention merging': attention(true),
  matmul: matmul((b, k, n) => b[k * 12 + n], 12, [2, 2]),
  'matmul out-in': matmul((b, k, n) => b[n * 20 + k], 20, [1, 1]),
  'matmul few rows': matmul((b, k, n) => b[n * 20 + k], 20, [1, 2], 2),
  'layer norm': norm(true),
  'rms norm': norm(false),
  softmax: softmax(),
  'cross entropy': crossEntropy(),
  recurrent: recurrent(),
  squares: squares(),
  'sort count': sortCount(),
  'sort scan': sortScan(),
  'lsh hash': hash(),
  decode: decode(),
  'append int8': appendInt8(),
  ...sums,
};

// Data races: node races.mjs REFLECT SHADERS, where REFLECT is the file to import of npm's `wgsl_reflect` and SHADERS is what
// `gates` wrote. Each kernel with workgroup memory runs on the CPU, a workgroup in lockstep, on a case small enough: no two
// lanes may touch the same word between two barriers, one of them writing. Then each barrier that the run met, and that no kernel
// before was found to need, is taken out, one at a time, and the check must notice: either it is blind, or the barrier is superfluous
// (SPARE).
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

import { cases } from './races/cases.mjs';
import { patch, turns } from './races/lockstep.mjs';

const [, , reflect, file, only] = process.argv;
const wgsl = await import(pathToFileURL(reflect));
const met = new Set();
patch(wgsl, met);

/** A case with lanes in order and backwards, as far as nothing goes wrong. */
function run(...call) {
  turns.backwards = false;
  const forwards = runOnce(...call);
  if (forwards.races.length + forwards.errors.length) return forwards;
  turns.backwards = true;
  return runOnce(...call);
}

/** Runs a case; what went wrong, and the lines of the barriers that lanes met at. Of `bindings` the n-th is number n + 1. */
function runOnce(text, entry, bindings, { groups, params, buffers, expected }) {
  const place = (name) => {
    if (!bindings.includes(name)) throw new Error(`no binding ${name} among ${bindings}`);
    return bindings.indexOf(name) + 1;
  };
  const bound = Object.fromEntries(Object.entries(buffers).map(([name, data]) => [place(name), data.slice().buffer]));
  bound[0] = { uniform: uniform(text, params) };
  const without = bindings.filter((name) => !(name in buffers));
  if (without.length) throw new Error(`the case has no ${without}`);
  met.clear();
  const { races, errors } = wgsl.detectRaces(text, entry, groups, { 0: bound });
  const wrong = Object.entries(expected).filter(([name, want]) => !equal(want, new want.constructor(bound[place(name)])));
  return {
    races: races.map(({ message }) => message),
    errors: [...errors, ...wrong.map(([name]) => `${name} is not what the kernel should have computed`)],
    barriers: [...met].sort((a, b) => a - b),
  };
}

/**
 * The text as the package can read it, on the same lines: it follows no alias of an alias, `block` and `read` are words of its own,
 * fractions in hexadecimal are other numbers to it, a bool in a struct takes no room: the next member lies over it; it cannot add to a matrix in
 * its place; and it does not know workgroupUniformLoad, which is a load between two barriers.
 */
function readable(text) {
  text = text.replace(/\bblock\b/g, 'block_').replace(/\bread\b(?=\.| =)/g, 'read_').replace(/0x1(\.[0-9a-f]+)?p([+-]?\d+)f/g, decimal);
  text = text.replace(/^struct \w+ \{[^}]*\}/gm, (struct) => struct.replace(/: bool\b/g, ': u32'));
  text = text.replace(/^( *)(\w+\[\w+\]) \+= (\w+);$/gm, '$1$2 = $2 + $3;');
  text = text.replace(
    /return workgroupUniformLoad\(&(.+)\);/g,
    'workgroupBarrier(); let loaded = $1; workgroupBarrier(); return loaded;',
  );
  text = text.replace(
    /return workgroupUniformLoad\(&(.+?)\)(\..+);/g,
    'workgroupBarrier(); let loaded = $1; workgroupBarrier(); return loaded$2;',
  );
  text = text.replace(
    /let (\w+) = workgroupUniformLoad\(&(.+?)\);/g,
    'workgroupBarrier(); let $1 = $2; workgroupBarrier();',
  );
  const alias = /^alias (\w+) = (.+);$/m;
  for (let found; (found = alias.exec(text)); ) {
    text = text.replace(alias, '').replace(new RegExp(`\\b${found[1]}\\b`, 'g'), found[2]);
  }
  return text;
}

/** A fraction in hexadecimal, of which the point and what is behind it, and the exponent are given. */
function decimal(_, fraction = '.0', exponent) {
  const digits = fraction.slice(1);
  return `${((1 + parseInt(digits, 16) / 16 ** digits.length) * 2 ** exponent).toExponential()}f`;
}

/** The uniform struct, 0 where nothing is said. */
function uniform(text, params) {
  const { type } = new wgsl.WgslReflect(text).uniforms[0];
  const view = new DataView(new ArrayBuffer(Math.ceil(type.size / 16) * 16));
  const fill = ({ members }, start, values) => {
    for (const [name, value] of Object.entries(values)) {
      const member = members.find((one) => one.name === name);
      if (!member) throw new Error(`no parameter ${name}`);
      const at = start + member.offset;
      if (typeof value === 'object') fill(member.type, at, value);
      else if (member.type.name === 'f32') view.setFloat32(at, value, true);
      else view.setUint32(at, value, true);
    }
  };
  fill(type, 0, params);
  return view.buffer;
}

const equal = (want, got) => want.every((x, n) => Math.abs(x - got[n]) <= 1e-4 * (1 + Math.abs(x)));

/** Kernels with workgroup memory that this check does not run, and why. */
const UNCOVERED = {
  'gradients of terms on the direct tile': 'the interpreter does not transpose what its loops leave',
  'linear attention on CPUs': 'its lanes share flags alone, as those of the other kernel do',
  'column sums': 'no case is written yet',
  'clip factor': 'the interpreter fails on its loads of pairs',
  'sort scatter': 'the interpreter takes more than 45 s of processor time with 32 lanes instead of 256, too',
  'attention and matrix products with cooperative matrices': 'no interpreter knows them',
};

/** Barriers, by their line and the next, that no race needs as functions are called today; they guard the next caller. */
const SPARE = [
  // attention: every tile stages values behind a barrier after its last reduction. Where that lies over values, and on tall tiles, it is needed; not in the cases.
  'workgroupBarrier(); // the last maxima, and sums, are read to their end\n' +
    'arena[strip_of_lane(lane, lane.c)][lane.c % CHUNK] = x;',
  // attention d bias: on the staged tile the next products wait before there are derivatives. The direct tile needs it; the interpreter does not run its matrices.
  "workgroupBarrier(); // where no products wait for each other, the next tile's derivatives come at once\n}",
];

const { small } = JSON.parse(readFileSync(file, 'utf8'));
let [failures, taken] = [0, 0];
const fail = (label, what) => {
  failures++;
  console.error(`${label}: ${what}`);
};
const names = new Set(small.map(({ label }) => label));
Object.keys(cases).filter((name) => !names.has(name)).forEach((name) => fail(name, 'no such shader'));
// Barriers by their line and the next: kernels share functions, and what one needs the other need not.
const [needed, unneeded] = [new Set(), []];
for (const { label, entry, text, bindings } of small.filter((one) => !only || one.label.startsWith(only))) {
  if (!cases[label]) {
    fail(label, 'has no case');
    continue;
  }
  const start = performance.now();
  const lines = readable(text).split('\n');
  const { races, errors, barriers } = run(lines.join('\n'), entry, bindings, cases[label]);
  [...errors, ...races.slice(0, 5)].forEach((fault) => fail(label, fault));
  if (!barriers.length) fail(label, 'met no barrier');
  let out = 0;
  for (const line of barriers) {
    const barrier = lines.slice(line - 1, line + 1).join('\n');
    // One kernel that needs it is enough.
    if (needed.has(barrier)) continue;
    const without = [...lines];
    without[line - 1] = without[line - 1].replace(/(workgroup|storage)Barrier\(\);/g, '');
    if (without[line - 1] === lines[line - 1]) throw new Error(`${label}: no barrier in line ${line}`);
    const noticed = run(without.join('\n'), entry, bindings, cases[label]);
    // Atomics do not race; what they leave is wrong all the same, in one order of the lanes or the other.
    if (noticed.races.length + noticed.errors.length) needed.add(barrier);
    else unneeded.push({ label, line, barrier });
    out++;
  }
  taken += out;
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`  ${label}: ${races.length} races; ${barriers.length} barriers, ${out} taken out (${seconds} s)`);
}
for (const { label, line, barrier } of unneeded.filter(({ barrier }) => !needed.has(barrier))) {
  if (SPARE.includes(barrier.replace(/^ +/gm, ''))) {
    console.log(`  ${label}: the barrier of line ${line} is a spare one`);
    continue;
  }
  fail(label, `without the barrier of line ${line} nothing is noticed:\n${barrier}`);
}
Object.entries(UNCOVERED).forEach(([name, why]) => console.log(`  not covered: ${name} (${why})`));
console.log(`Races: ${small.length} kernels, ${taken} barriers taken out, ${failures} failures`);
process.exit(failures ? 1 : 0);

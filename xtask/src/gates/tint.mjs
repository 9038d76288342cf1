// What Tint, Chrome's compiler, says about shaders: node tint.mjs WEBGPU SHADERS, where WEBGPU is the file to import of
// npm's `webgpu` (Dawn without a browser) and SHADERS is what `gates` wrote. It refuses what naga lets pass, above all
// barriers that only some lanes reach. Planted faults come first: a compiler that takes them judges nothing.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [, , webgpu, shaders] = process.argv;
const { create, globals } = await import(pathToFileURL(webgpu));
Object.assign(globalThis, globals);

// Dawn's null backend compiles without any driver. Kept, because Dawn ends badly where it is collected before its devices.
const gpu = create(['backend=null']);
const adapter = await gpu.requestAdapter();
if (!adapter) throw new Error('Dawn has no null backend');
// No features: what every browser has.
const device = await adapter.requestDevice();

/** What Tint has against a text; a warning counts. */
async function faults(code) {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  const error = await device.popErrorScope();
  const lines = messages.filter(({ type }) => type !== 'info');
  const found = lines.map(({ type, lineNum, message }) => `line ${lineNum}: ${type}: ${message}`);
  return error && !found.length ? [error.message] : found;
}

const kernel = (body) => `
  var<workgroup> shared_: array<f32, 64>;
  @group(0) @binding(0) var<storage, read_write> out: array<f32>;
  @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32) { ${body} }`;
const planted = {
  'a barrier under a condition of the lane': kernel('if (lane < 32u) { workgroupBarrier(); } out[lane] = 0.0;'),
  'a barrier in a loop whose end is written by the shader':
    kernel('for (var i = 0u; i < u32(out[0]); i++) { workgroupBarrier(); } out[lane] = 0.0;'),
  'a constant that overflows': kernel('out[lane] = 3.0e38f * 10.0f;'),
  'a name that is not there': kernel('out[lane] = nothing;'),
};

let failures = 0;
if ((await faults(kernel('shared_[lane] = 1.0; workgroupBarrier(); out[lane] = shared_[63u - lane];'))).length) {
  console.error('Tint refuses a sound shader');
  failures++;
}
for (const [what, code] of Object.entries(planted)) {
  if (!(await faults(code)).length) {
    console.error(`Tint lets ${what} pass`);
    failures++;
  }
}

const { variants: list } = JSON.parse(readFileSync(shaders, 'utf8'));
if (!list.length) throw new Error('no variants');
for (const { label, text } of list) {
  const found = await faults(text);
  if (!found.length) continue;
  failures++;
  console.error(`${label}:\n  ${found.join('\n  ')}`);
}
console.log(`Tint: ${list.length} variants, ${Object.keys(planted).length} planted faults, ${failures} failures`);
device.destroy();
// Dawn's threads would keep the process.
process.exit(failures ? 1 : 0);

// Runs recorded cases on Dawn: node replay.mjs WEBGPU FOLDER, where WEBGPU is the file to import of npm's `webgpu` and
// FOLDER is what `conformance export` wrote. Each case leaves out0.bin, out1.bin, ... in its folder, for
// `conformance judge`.
//
// The cases are plain WebGPU (see tools/conformance/src/trace.rs): a browser could run them just as well.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [, , webgpu, folder] = process.argv;
const { create, globals } = await import(pathToFileURL(webgpu));
Object.assign(globalThis, globals);

const gpu = create([]);
const adapter = await gpu.requestAdapter();
if (!adapter) throw new Error('Dawn finds no adapter');
// No features and the default limits: what every browser has.
const device = await adapter.requestDevice();
device.lost.then((info) => {
  if (info.reason !== 'destroyed') {
    console.error(`device lost: ${info.message}`);
    process.exit(1);
  }
});

const json = (...path) => JSON.parse(readFileSync(join(folder, ...path), 'utf8'));

/** Throws what the device says against `work`. */
async function checked(what, work) {
  for (const filter of ['validation', 'out-of-memory', 'internal']) device.pushErrorScope(filter);
  const value = await work();
  for (let n = 0; n < 3; n++) {
    const error = await device.popErrorScope();
    if (error) throw new Error(`${what}: ${error.message}`);
  }
  return value;
}

/** Pipelines by all that they are made from: equal ones are compiled once. */
const pipelines = new Map();

async function pipeline(path, recorded, { shader, entry, layout }) {
  const code = readFileSync(join(path, shader), 'utf8');
  const entries = recorded.layouts[layout].map(({ binding, kind, dynamic, min_bytes }) => ({
    binding,
    visibility: GPUShaderStage.COMPUTE,
    buffer: { type: kind, hasDynamicOffset: dynamic, minBindingSize: min_bytes },
  }));
  const key = JSON.stringify([code, entry, entries]);
  if (!pipelines.has(key)) {
    const group = device.createBindGroupLayout({ entries });
    const made = await checked(recorded.case, async () =>
      device.createComputePipelineAsync({
        layout: device.createPipelineLayout({ bindGroupLayouts: [group] }),
        compute: { module: device.createShaderModule({ code }), entryPoint: entry },
      }),
    );
    pipelines.set(key, { made, group });
  }
  return pipelines.get(key);
}

/** Runs one case and writes what its outputs hold. */
async function run(name) {
  const path = join(folder, name);
  const recorded = json(name, 'case.json');
  // A plan has pipelines that a call does not use: only those that are dispatched.
  const compiled = new Map();
  for (const { pipeline: number } of recorded.dispatches) {
    if (!compiled.has(number)) compiled.set(number, await pipeline(path, recorded, recorded.pipelines[number]));
  }
  const results = await checked(recorded.case, async () => {
    const buffers = recorded.buffers.map(({ bytes, usage, data }) => {
      // Contents are written at creation: mapping for reading excludes that, and such buffers are not needed here.
      const readable = (usage & GPUBufferUsage.MAP_READ) !== 0;
      const buffer = device.createBuffer({ size: bytes, usage, mappedAtCreation: data !== null && !readable });
      if (data !== null && !readable) {
        new Uint8Array(buffer.getMappedRange()).set(readFileSync(join(path, data)));
        buffer.unmap();
      }
      return buffer;
    });
    // Equal layouts may be several objects here, and were one there.
    const groups = recorded.dispatches.map(({ pipeline: number, group }) =>
      device.createBindGroup({
        layout: compiled.get(number).group,
        entries: recorded.groups[group].buffers.map(([binding, buffer, offset, size]) => ({
          binding,
          resource: { buffer: buffers[buffer], offset, size: size ?? undefined },
        })),
      }),
    );
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    recorded.dispatches.forEach(({ pipeline: number, dynamic_offsets, workgroups }, n) => {
      pass.setPipeline(compiled.get(number).made);
      pass.setBindGroup(0, groups[n], dynamic_offsets);
      pass.dispatchWorkgroups(...workgroups);
    });
    pass.end();
    const copies = recorded.outputs.map((output) => {
      const size = recorded.buffers[output].bytes;
      const copy = device.createBuffer({ size, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
      encoder.copyBufferToBuffer(buffers[output], 0, copy, 0, size);
      return copy;
    });
    device.queue.submit([encoder.finish()]);
    await Promise.all(copies.map((copy) => copy.mapAsync(GPUMapMode.READ)));
    const bytes = copies.map((copy) => Buffer.from(new Uint8Array(copy.getMappedRange())));
    [...buffers, ...copies].forEach((buffer) => buffer.destroy());
    return bytes;
  });
  results.forEach((bytes, n) => writeFileSync(join(path, `out${n}.bin`), bytes));
}

let failed = 0;
const names = json('cases.json');
for (const name of names) {
  try {
    await run(name);
  } catch (error) {
    // Its results are missing, which `judge` counts as a failure.
    failed += 1;
    console.error(`${name}: ${error.message ?? error}`);
  }
}
const { vendor, architecture, description } = adapter.info;
const version = JSON.parse(readFileSync(join(webgpu, '..', 'package.json'), 'utf8')).version;
const through = `Dawn, npm webgpu ${version}`;
writeFileSync(
  join(folder, 'adapter.json'),
  JSON.stringify({ adapter: description || `${vendor} ${architecture}`, driver: `${vendor} ${architecture}`, through }),
);
console.log(`${through}: ${names.length} cases, ${failed} refused`);
process.exit(0);

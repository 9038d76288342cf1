// A worker: the crate, away from the page, which stays responsive. One draws patterns and answers by the asker's id; one has the
// device and tells { kind, json }.
"use strict";

let session;
let drawing;
// Of the worker that draws: calls that come before the crate is there wait for it.
let ready;

const tell = (kind, json) => postMessage({ kind, json });

// Called with the words of a panic; after it nothing more can be done here.
let panic;
self.panicked = (words) => {
  panic = words;
  if (!ready) tell("panicked", JSON.stringify(words));
};

const calls = {
  async open({ module, name, browser, threads }) {
    await wasm_bindgen({ module_or_path: module });
    session = await wasm_bindgen.Session.open(name, browser, threads);
    tell("adapter", session.adapter());
  },
  async run({ request }) {
    tell("outcome", await session.run(request, tell));
  },
  async verify({ filter }) {
    tell("verified", JSON.stringify(await session.verify(filter, tell)));
  },
  async bench({ filter }) {
    tell("record", await session.bench(filter, tell));
  },
  stop: () => session.stop(),
};

const draws = {
  catalogue: () => drawing.catalogue(),
  choose: ({ choice }) => drawing.choose(choice),
  shares: ({ part, queries, keys, rows, columns }) =>
    drawing.shares(part, Uint32Array.from(queries), Uint32Array.from(keys), rows, columns),
};

const words = (error) => error.message ?? String(error);

async function draw({ module }) {
  await wasm_bindgen({ module_or_path: module });
  drawing = new wasm_bindgen.Drawing();
}

onmessage = async ({ data }) => {
  if (data.call === "draw") {
    ready = draw(data);
    return;
  }
  if (ready) {
    const { id } = data;
    try {
      await ready;
      const result = draws[data.call](data);
      postMessage({ id, result }, result.buffer ? [result.buffer] : []);
    } catch (error) {
      // After a trap of the program another worker is needed.
      postMessage({ id, error: panic ?? words(error), over: error instanceof WebAssembly.RuntimeError });
    }
    return;
  }
  try {
    await calls[data.call](data);
  } catch (error) {
    tell("failed", JSON.stringify(words(error)));
  }
};

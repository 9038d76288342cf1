// The worker: kernels and reference, away from the page, which stays responsive. Its messages are { kind, json }.
"use strict";

let session;

const tell = (kind, json) => postMessage({ kind, json });

// Called with the words of a panic; after it nothing more can be done here.
self.panicked = (words) => tell("failed", JSON.stringify(words));

const calls = {
  async open({ wasm, name, browser, threads }) {
    await wasm_bindgen({ module_or_path: wasm });
    session = await wasm_bindgen.Session.open(name, browser, threads);
    tell("adapter", session.adapter());
  },
  async verify({ filter }) {
    tell("verified", JSON.stringify(await session.verify(filter, tell)));
  },
  async bench({ filter }) {
    tell("record", await session.bench(filter, tell));
  },
  stop: () => session.stop(),
};

onmessage = async ({ data }) => {
  try {
    await calls[data.call](data);
  } catch (error) {
    tell("failed", JSON.stringify(error.message ?? String(error)));
  }
};

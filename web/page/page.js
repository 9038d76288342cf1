// The page: the compiled crate, its two workers, and what all tabs share.
"use strict";

// The device, in a worker of its own: while it runs, patterns can be drawn.
const gpu = {
  worker: null,
  module: null,
  name: "",
  ready: false,
  // The tab that runs something.
  runs: null,

  post: (message, transfer = []) => gpu.worker.postMessage(message, transfer),

  // Which tab runs something, if one does.
  running(tab) {
    gpu.runs = tab;
    const idle = gpu.ready && !tab;
    for (const id of ["start", "verify", "bench"]) at(id).disabled = !idle;
    at("filter").disabled = Boolean(tab);
    at("start-stop").disabled = tab !== "run";
    at("stop").disabled = tab !== "bench";
    for (const id of ["download", "copy"]) at(id).disabled = Boolean(tab) || !state.record;
  },

  say(words, mark) {
    for (const line of document.querySelectorAll(".gpu")) Object.assign(text(line, words), { className: `gpu ${mark}` });
  },

  // Nothing can be run.
  dead(why) {
    gpu.ready = false;
    gpu.running(null);
    gpu.say(`${why} Patterns can be drawn all the same.`, "fair");
    for (const id of ["step", "run-step"]) text(at(id), "Nothing can be run here.");
  },

  failed(why) {
    if (!gpu.runs) return gpu.dead(why);
    (gpu.runs === "run" ? run.ended : ended)(`Failed: ${why}`);
  },

  // A worker whose program has ended does nothing more: the next one begins anew.
  panicked(why) {
    gpu.failed(why);
    if (gpu.ready) gpu.restart();
  },

  restart() {
    gpu.worker.terminate();
    gpu.ready = false;
    gpu.running(null);
    gpu.start();
  },

  start() {
    gpu.worker = worker();
    const all = { ...heard, ...run.heard, failed: gpu.failed, panicked: gpu.panicked };
    gpu.worker.onmessage = ({ data: { kind, json } }) => {
      all[kind](JSON.parse(json));
      if (kind !== "adapter") return;
      gpu.ready = true;
      gpu.say(gpu.name, "good");
      gpu.running(null);
    };
    gpu.worker.onerror = (event) => gpu.panicked(event.message);
    const { brands, platform } = navigator.userAgentData ?? {};
    const brand = brands?.find((it) => !/Not.A.Brand/i.test(it.brand));
    const browser = brand ? `${brand.brand} ${brand.version}, ${platform}` : navigator.userAgent;
    gpu.post({ call: "open", module: gpu.module, name: gpu.name, browser, threads: navigator.hardwareConcurrency });
  },

  async open(module) {
    gpu.module = module;
    if (!navigator.gpu) {
      const where = isSecureContext ? "" : " It needs https, or the file opened from a disk.";
      return gpu.dead(`This browser has no WebGPU.${where} Chrome and Edge 123, Safari 26 and Firefox 141 have it.`);
    }
    const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) return gpu.dead("This browser gives no GPU adapter: see chrome://gpu or about:support.");
    const { description, device, vendor, architecture } = adapter.info;
    gpu.name = [...new Set([description || device, vendor, architecture])].filter(Boolean).join(", ") || "an adapter without a name";
    return gpu.start();
  },
};

const worker = () => new Worker(URL.createObjectURL(new Blob([at("worker").textContent], { type: "text/javascript" })));

// Puts words on the clipboard, and says so in the button's place.
async function copy(button, words) {
  const before = button.textContent;
  const copied = await navigator.clipboard.writeText(words).then(() => "Copied", () => "Not allowed");
  text(button, copied);
  setTimeout(() => text(button, before), 1500);
}

const showTheme = () => {
  theme.show();
  at("theme").setAttribute("aria-pressed", String(theme.dark()));
  mask.again();
};

async function open() {
  at("theme").onclick = () => { link.set({ theme: theme.dark() ? "light" : "dark" }); showTheme(); };
  matchMedia("(prefers-color-scheme: dark)").onchange = showTheme;
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.onclick = () => copy(button, at(button.dataset.copies).textContent);
  }
  // The one form of a pattern is where it is needed.
  tabs.heard.push((tab) => at(tab === "run" ? "choice-there" : "choice-here").append(at("choice")));
  tabs.open();
  run.open();
  bench.open();
  showTheme();
  const bytes = await (await fetch(`data:application/wasm;base64,${at("wasm").textContent}`)).arrayBuffer();
  const module = await WebAssembly.compile(bytes);
  await Promise.all([
    patterns.open(module).catch((error) => patterns.refuse(error.message)),
    gpu.open(module).catch((error) => gpu.dead(error.message)),
  ]);
}

open().catch((error) => { patterns.refuse(error.message); gpu.dead(error.message); });

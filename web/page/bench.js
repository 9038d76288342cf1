// The third tab: all cases, verified and timed as the command line does it, and the record.
"use strict";

const state = { cases: new Map(), steps: 0, done: -1, begun: 0, record: null };

function start(call) {
  Object.assign(state, { steps: 0, done: -1, begun: performance.now(), record: null });
  state.cases.clear();
  show();
  at("ceilings").hidden = true;
  gpu.running("bench");
  gpu.post({ call, filter: at("filter").value.trim() });
}

function progress(name) {
  state.done += 1;
  const spent = (performance.now() - state.begun) / 1e3;
  const left = state.done > 2 ? `, about ${Math.ceil((spent / state.done) * (state.steps - state.done))} s left` : "";
  Object.assign(at("progress"), { value: state.done, max: state.steps });
  text(at("step"), `[${state.done + 1}/${state.steps}${left}] ${name}`);
}

function ended(words) {
  gpu.running(null);
  at("progress").value = at("progress").max;
  text(at("step"), words);
  show();
}

function row(it) {
  const hot = it.hot && clock(it.hot).summary;
  const cold = it.cold && clock(it.cold).summary;
  const ratio = it.verification?.worst_ratio;
  const passed = it.verification?.pass;
  const [words, mark] = {
    measured: ["verified, timed", "good"],
    unconverged: ["verified, unconverged", "fair"],
    failed: ["FAILED", "bad"],
    cannot_run: ["cannot run", "fair"],
    interrupted: passed ? ["verified", "good"] : ["not run", "fair"],
  }[it.status];
  const cells = [
    ["status", words],
    ["error/bound", ratio == null ? "" : format.figures(ratio)],
    ["time hot", hot ? format.seconds(hot.median_s) : ""],
    ["± %", hot ? ((100 * hot.mad_s) / hot.median_s).toFixed(2) : ""],
    ["time cold", cold ? format.seconds(cold.median_s) : ""],
    ["GFLOP/s", it.rates ? format.figures(it.rates.useful_flop_s * 1e-9) : ""],
    ["GB/s", it.rates ? format.figures(it.rates.bytes_s * 1e-9) : ""],
    ["roofline %", it.rates?.roofline_percent != null ? format.percent(it.rates.roofline_percent) : ""],
    ["waste", hot && it.cost?.block_waste ? it.cost.block_waste.toFixed(2) : ""],
  ];
  const line = make("tr");
  const name = make("th", it.name);
  if (it.why) name.append(text(Object.assign(make("span"), { className: "why" }), it.why));
  line.append(name);
  for (const [label, value] of cells) {
    const cell = make("td", value);
    cell.dataset.label = label;
    if (label === "status") cell.className = mark;
    line.append(cell);
  }
  line.dataset.status = it.status;
  line.dataset.pass = String(passed ?? "");
  return line;
}

function show() {
  const cases = [...state.cases.values()];
  at("results").hidden = cases.length === 0;
  at("cases").tBodies[0].replaceChildren(...cases.map(row));
  at("plots").replaceChildren(...plots(cases, Math.min(at("plots").clientWidth, 720)));
  at("cases").classList.toggle("untimed", !cases.some((it) => it.hot));
  const compared = cases.filter((it) => it.verification);
  const failed = cases.filter((it) => it.status === "failed");
  const refused = cases.filter((it) => it.status === "cannot_run");
  const worst = Math.max(0, ...compared.map((it) => it.verification.worst_ratio ?? Infinity));
  const words = [
    `${compared.filter((it) => it.verification.pass).length} of ${cases.length} cases verified`,
    `worst error/bound ${format.figures(worst)}`,
    ...(refused.length ? [`${refused.length} cannot run on this adapter`] : []),
    ...(failed.length ? [`${failed.length} FAILED`] : []),
  ];
  text(at("summary"), words.join("; ") + (state.record?.adapters[0].drifted ? ". A ceiling drifted: compare nothing with it." : "."));
}

function describe(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}

function ceilings(all) {
  at("ceilings").hidden = false;
  describe(at("ceilings").querySelector("dl"), all.map(({ kind, before, after, drift, why }) => {
    const values = [before, after].filter(Boolean).map((probe) => probe.value);
    if (values.length === 0) return [kind.replace("_", " "), why];
    const best = kind === "launch" ? Math.min(...values) : Math.max(...values);
    const since = drift == null ? "" : `, ${drift >= 0 ? "+" : ""}${format.percent(100 * drift)} % since`;
    return [kind.replace("_", " "), format.ceiling(kind, best) + since];
  }));
}

const heard = {
  adapter(it) {
    describe(at("adapter"), [
      ["kind", it.kind === "Cpu" ? "software (a CPU)" : "GPU"],
      ["browser", it.driver],
      ["per binding", `up to ${format.bytes(it.limits.max_storage_buffer_binding_size)}`],
      ["workgroup memory", format.bytes(it.limits.max_compute_workgroup_storage_size)],
      ["features", it.features.filter((name) => /f16|timestamp|subgroup/.test(name)).join(", ") || "WebGPU's default"],
    ]);
  },
  steps: (count) => { state.steps = count; },
  begin: progress,
  ceilings,
  case(it) {
    state.cases.set(it.name, it);
    show();
  },
  verified: (all) => ended(all ? "Done." : "Stopped."),
  record(record) {
    state.record = record;
    // Rates are against the better of both measurements of a ceiling: known at the end only.
    for (const it of record.adapters[0].cases) state.cases.set(it.name, it);
    ended(record.complete ? "Done." : "Stopped.");
  },
};

const json = () => `${JSON.stringify(state.record, null, 2)}\n`;

function download() {
  const { adapters: [{ name }], date } = state.record;
  const words = `${name}-${date}`.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  const url = URL.createObjectURL(new Blob([json()], { type: "application/json" }));
  Object.assign(make("a"), { href: url, download: `wgpu-attention-${words}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const bench = {
  open() {
    for (const call of ["verify", "bench"]) at(call).onclick = () => start(call);
    at("stop").onclick = () => gpu.post({ call: "stop" });
    at("download").onclick = download;
    at("copy").onclick = () => copy(at("copy"), json());
    // Pictures are as wide as there is room.
    addEventListener("resize", () => { if (state.cases.size > 0) show(); });
  },
};

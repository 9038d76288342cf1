// The second tab: the chosen pattern on this GPU, beside dense attention.
"use strict";

// After a click on Stop.
const PATIENCE_MS = 5000;

const run = {
  steps: 0,
  title: "",

  request: () => JSON.stringify({
    choice: choice.request(), heads: at("heads").value, head_dim: at("dim").value, element: at("type").value,
  }),

  start() {
    run.steps = 0;
    // Another pattern may be chosen while this one runs.
    run.title = choice.kind.title;
    at("run-progress").value = 0;
    at("outcome").hidden = true;
    text(at("run-step"), "It begins.");
    gpu.running("run");
    gpu.post({ call: "run", request: run.request() });
  },

  // A call of minutes hears nothing: then its worker ends, and another one begins.
  stop() {
    const { worker } = gpu;
    gpu.post({ call: "stop" });
    at("start-stop").disabled = true;
    setTimeout(() => {
      if (gpu.runs !== "run" || gpu.worker !== worker) return;
      run.ended("Stopped.");
      gpu.restart();
    }, PATIENCE_MS);
  },

  heard: {
    step: (words) => text(at("run-step"), words),
    ran() {
      run.steps += 1;
      at("run-progress").value = run.steps;
    },
    outcome(outcome) {
      run.ended(outcome.case.status === "interrupted" || outcome.dense?.status === "interrupted" ? "Stopped." : "Done.");
      run.show(outcome);
    },
  },

  ended(words) {
    gpu.running(null);
    at("run-progress").value = at("run-progress").max;
    text(at("run-step"), words);
  },

  // In a sentence: whether it is right, and how fast it is.
  verdict({ case: it, dense, no_dense }) {
    const { pass, rows, of_rows, worst_ratio } = it.verification ?? {};
    const count = (n) => n.toLocaleString("en");
    if (it.status === "cannot_run") return [`This GPU cannot run it: ${it.why}`, "fair"];
    if (it.status === "interrupted") return ["It was stopped before its end.", "fair"];
    if (!pass) return [`FAILED: ${it.why}`, "bad"];
    const which = rows === of_rows ? `all ${count(rows)} rows` : `${count(rows)} of ${count(of_rows)} rows, drawn at random,`;
    const right = `Right: ${which} are within the bound, the worst at ${format.figures(worst_ratio)} of it.`;
    const [own, other] = [it.hot, dense?.hot].map((hot) => hot && clock(hot).summary.median_s);
    if (!own || !other) return [[right, no_dense].filter(Boolean).join(" "), "good"];
    const times = other / own;
    const faster = times >= 1 ? `${format.figures(times)} times as fast as` : `${format.figures(1 / times)} times as slow as`;
    const uneven = [it, dense].some(({ status }) => status === "unconverged") ? " The times did not settle: see ± %." : "";
    return [`${right} It is ${faster} dense attention here.${uneven}`, "good"];
  },

  show(outcome) {
    at("outcome").hidden = false;
    const [words, mark] = run.verdict(outcome);
    Object.assign(text(at("verdict"), words), { className: mark });
    const both = [outcome.case, outcome.dense];
    const count = (n) => n?.toLocaleString("en");
    const lines = [
      ["time of a call", (it) => it.hot && format.seconds(clock(it.hot).summary.median_s)],
      ["± %", (it) => it.hot && ((100 * clock(it.hot).summary.mad_s) / clock(it.hot).summary.median_s).toFixed(1)],
      ["error/bound", (it) => it.verification?.worst_ratio != null && format.figures(it.verification.worst_ratio)],
      ["rows compared", (it) => it.verification && count(it.verification.rows)],
      ["pairs kept", (it) => count(it.cost?.kept_pairs)],
      ["pairs visited", (it) => count(it.cost?.visited_pairs)],
      ["GFLOP/s, useful", (it) => it.hot && format.figures((1e-9 * it.cost.useful_flop) / clock(it.hot).summary.median_s)],
      ["memory", (it) => it.cost && format.bytes(it.cost.memory_bytes)],
      ["kernel path", (it) => it.path],
    ];
    at("beside").tBodies[0].replaceChildren(...lines.map(([name, of]) => {
      const line = make("tr");
      line.append(make("th", name), ...both.map((it) => make("td", (it && of(it)) || "–")));
      return line;
    }));
    const { heads, q_len, kv_len, head_dim } = outcome.case.shape;
    const sizes = `${count(q_len)} queries, ${count(kv_len)} keys, ${heads} ${heads === 1 ? "head" : "heads"} of ${head_dim}, ${outcome.case.dtype}`;
    text(at("ran-on"), `${run.title}: ${sizes}, on ${gpu.name}.`);
    at("outcome").dataset.status = outcome.case.status;
  },

  open() {
    for (const [id, name, starts] of [["heads", "heads", "1"], ["dim", "dim", "64"], ["type", "type", "f32"]]) {
      at(id).value = link.values[name] ?? starts;
      // A link may name what there is not.
      if (!at(id).value) at(id).value = starts;
      at(id).oninput = () => link.set({ [name]: at(id).value === starts ? null : at(id).value });
    }
    at("start").onclick = run.start;
    at("start-stop").onclick = run.stop;
  },
};

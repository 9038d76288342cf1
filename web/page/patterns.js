// The first tab: the chosen pattern, planned and drawn by the crate in a worker of its own.
"use strict";

// As a shell takes it.
const quoted = (words) => (words.includes('"') ? `'${words}'` : `"${words}"`);

const patterns = {
  worker: null,
  module: null,
  asked: new Map(),
  busy: false,
  // What changed since the worker was asked: the choice, or what is in view.
  changed: { choice: false, view: false },
  facts: null,

  // Asks the worker; a refusal is an error.
  call(call, rest = {}) {
    const id = patterns.asked.size === 0 ? 0 : Math.max(...patterns.asked.keys()) + 1;
    return new Promise((done, failed) => {
      patterns.asked.set(id, { done, failed });
      patterns.worker.postMessage({ call, id, ...rest });
    });
  },

  // Draws what holds now. While the worker draws, only the last change waits.
  async update(what) {
    patterns.changed[what] = true;
    if (patterns.busy) return;
    patterns.busy = true;
    while (patterns.changed.choice || patterns.changed.view) {
      const { choice: anew } = patterns.changed;
      patterns.changed = { choice: false, view: false };
      try {
        if (anew) patterns.show(JSON.parse(await patterns.call("choose", { choice: JSON.stringify(choice.request()) })));
        if (patterns.facts) {
          const window = mask.window();
          mask.take(window, await patterns.call("shares", { part: Number(at("shown").value), ...window }));
        }
      } catch (error) {
        patterns.refuse(error.message);
      }
    }
    patterns.busy = false;
    at("picture").dataset.drawn = String(Number(at("picture").dataset.drawn ?? 0) + 1);
  },

  // The crate's own words; what was drawn last stays, paler.
  refuse(words) {
    text(at("refused"), words);
    at("patterns").classList.toggle("stale", words !== "");
    at("patterns").classList.toggle("nothing", !patterns.facts);
  },

  show(facts) {
    patterns.facts = facts;
    patterns.refuse("");
    const { kept, visited, dense, parts } = facts;
    const count = (n) => n.toLocaleString("en");
    const percent = (n) => `${format.figures((100 * n) / dense)} %`;
    const [full, partial, skipped] = ["full", "partial", "skipped"].map((kind) => parts.reduce((all, part) => all + part[kind], 0));
    const tiles = [
      ["pairs kept", count(kept), `${percent(kept)} of dense`],
      ["pairs visited", count(visited), kept ? `${format.figures(visited / kept)} for each kept` : "none is kept"],
      ["pairs of dense attention", count(dense), `${count(facts.queries)} queries × ${count(facts.keys)} keys`],
      ["blocks visited", count(full + partial), `${count(full)} full, ${count(partial)} partial; ${count(skipped)} skipped`],
      ["mask in memory", format.bytes(facts.mask_bytes), `all scores of a head: ${format.bytes(facts.score_bytes)}`],
    ];
    at("facts").replaceChildren(...tiles.map(([name, value, more]) => {
      const tile = make("div");
      tile.append(make("dt", name), make("dd", value), Object.assign(make("dd", more), { className: "more" }));
      return tile;
    }));
    text(at("note"), facts.note ? `${facts.note}.` : "");
    const order = ([queries, keys]) => {
      if (queries && keys) return "natural";
      return queries ? "keys gathered" : keys ? "queries gathered" : "queries and keys gathered";
    };
    at("parts").tBodies[0].replaceChildren(...parts.map((part, n) => {
      const line = make("tr");
      line.append(make("th", `part ${n + 1}`), ...[
        ["order", order(part.natural)], ["queries × keys", `${count(part.queries)} × ${count(part.keys)}`],
        ["block", `${part.block_q} × ${part.block_k}`], ["full", count(part.full)], ["partial", count(part.partial)],
        ["skipped", count(part.skipped)],
      ].map(([label, words]) => {
        const cell = make("td", words);
        cell.dataset.label = label;
        return cell;
      }));
      return line;
    }));
    text(at("rust"), `let pattern = ${facts.rust};`);
    text(at("command"), facts.command ? `--pattern ${quoted(facts.command)}` : "too long for a command line: a JSON file holds it");
    document.querySelector("[data-copies=command]").disabled = !facts.command;
    patterns.orders(facts);
  },

  // All parts in natural order, or one of several in its own.
  orders({ queries, keys, parts }) {
    const own = parts.length === 1 && parts[0].natural.every(Boolean) ? [] : parts.map((_, n) => [`part ${n + 1} in its order`, n]);
    const options = [["natural order", -1], ...own];
    const before = at("shown").value || link.values.shown || "-1";
    at("shown").replaceChildren(...options.map(([words, value]) => new Option(words, value)));
    at("shown").value = options.some(([, value]) => String(value) === before) ? before : "-1";
    at("shown").disabled = options.length === 1;
    const part = parts[at("shown").value] ?? (own.length === 0 ? parts[0] : null);
    mask.of(part ? [part.queries, part.keys] : [queries, keys], part && [part.block_q, part.block_k]);
    mask.canvas.setAttribute("aria-label", `Mask of ${choice.kind.title}, ${queries} queries by ${keys} keys`);
  },

  // A worker that draws.
  start() {
    patterns.worker = worker();
    patterns.worker.onmessage = ({ data: { id, result, error, over } }) => {
      const { done, failed } = patterns.asked.get(id);
      patterns.asked.delete(id);
      if (error == null) return done(result);
      if (over) patterns.again();
      return failed(new Error(error));
    };
    patterns.worker.postMessage({ call: "draw", module: patterns.module });
  },

  // The program has ended: another one knows no choice yet.
  again() {
    patterns.worker.terminate();
    patterns.facts = null;
    patterns.start();
  },

  async open(module) {
    patterns.module = module;
    patterns.start();
    mask.heard = () => { if (patterns.facts) patterns.update("view"); };
    mask.open();
    const unknown = choice.open(JSON.parse(await patterns.call("catalogue")));
    choice.heard = () => patterns.update("choice");
    at("shown").onchange = () => {
      link.set({ shown: at("shown").value === "-1" ? null : at("shown").value });
      patterns.orders(patterns.facts);
      patterns.update("view");
    };
    await patterns.update("choice");
    if (unknown) text(at("refused"), unknown);
  },
};

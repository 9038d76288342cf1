// The form of a pattern: its name, its lengths, a slider and a number for each parameter. Both tabs that need a pattern show this one form.
"use strict";

const at = (id) => document.getElementById(id);
const text = (element, words) => { element.textContent = words; return element; };

// A slider has more places where numbers are small. The text beside it takes any number: what cannot be is refused by the crate.
const PLACES = 1000;
const scale = (least, most) => {
  const size = Math.log1p(Math.max(1, most - least));
  return {
    most: PLACES,
    place: (value) => Math.round((PLACES * Math.log1p(Math.min(Math.max(value - least, 0), Math.max(1, most - least)))) / size),
    value: (place) => least + Math.round(Math.expm1((size * place) / PLACES)),
  };
};
// Powers of two, and eighths of the way to the next.
const lengths = (() => {
  const [first, last] = [4, 16];
  return {
    most: 8 * (last - first),
    place: (value) => Math.round(8 * Math.min(Math.max(Math.log2(value) - first, 0), last - first)),
    value: (place) => 2 ** (first + Math.floor(place / 8)) * (1 + (place % 8) / 8),
  };
})();

const choice = {
  kinds: [],
  kind: null,
  // Called when anything changes.
  heard: () => {},

  // As the crate takes it.
  request() {
    const given = link.parameters();
    const values = Object.fromEntries(choice.kind.inputs.map(({ name, starts }) => [name, given[name] ?? starts]));
    return { pattern: choice.kind.name, length: link.values.n ?? "1024", queries: link.values.queries ?? "", values };
  },

  // A number with its slider. `read` gives the text that holds now.
  number({ name, label, read, scale: of, write }) {
    const line = document.createElement("div");
    line.className = "field";
    const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, step: 1 });
    const typed = Object.assign(document.createElement("input"), { type: "text", inputMode: "numeric", id: `in-${name}` });
    typed.autocomplete = "off";
    slider.setAttribute("aria-label", label);
    const place = () => {
      const { most, place: to } = of();
      const value = Number(typed.value);
      slider.max = most;
      slider.value = Number.isFinite(value) ? to(value) : 0;
      slider.setAttribute("aria-valuetext", typed.value);
    };
    slider.oninput = () => {
      typed.value = of().value(Number(slider.value));
      slider.setAttribute("aria-valuetext", typed.value);
      write(typed.value);
    };
    typed.oninput = () => { place(); write(typed.value.trim()); };
    const caption = Object.assign(document.createElement("label"), { htmlFor: typed.id, textContent: label });
    line.append(caption, typed, slider);
    line.show = () => { typed.value = read(); place(); };
    line.place = place;
    line.show();
    return line;
  },

  // One parameter of the pattern.
  input({ name, label, starts, form }) {
    const read = () => link.parameters()[name] ?? starts;
    // What a pattern starts with is in no link.
    const write = (value) => { link.set({ [name]: value === starts ? null : value }); choice.heard(); };
    if (form.is === "number") {
      const most = () => form.most ?? Math.max(Number(link.values.n ?? 1024) || 1024, form.least + 1);
      return choice.number({ name, label, read, write, scale: () => scale(form.least, most()) });
    }
    const line = Object.assign(document.createElement("div"), { className: "field" });
    const control = document.createElement(form.is === "choice" ? "select" : "input");
    control.id = `in-${name}`;
    if (form.is === "choice") control.append(...form.of.map((word) => new Option(word.replace("_", " "), word)));
    if (form.is === "flag") control.type = "checkbox";
    if (form.is === "text") Object.assign(control, { type: "text", spellcheck: false, autocomplete: "off", autocapitalize: "off" });
    const [get, put] = form.is === "flag"
      ? [() => (control.checked ? "1" : "0"), (value) => { control.checked = value === "1"; }]
      : [() => control.value, (value) => { control.value = value; }];
    put(read());
    control.oninput = () => write(get());
    line.classList.add(form.is);
    line.append(Object.assign(document.createElement("label"), { htmlFor: control.id, textContent: label }), control);
    return line;
  },

  // The fields of the chosen pattern.
  show() {
    const known = choice.kinds.find(({ name }) => name === (link.values.pattern ?? "causal"));
    choice.kind = known ?? choice.kinds[0];
    at("pattern").value = choice.kind.name;
    const { says, source } = choice.kind;
    text(at("says"), source ? says.replace(/\.$/, ` (${source}).`) : says);
    const fields = choice.kind.inputs.map(choice.input);
    at("inputs").replaceChildren(...fields);
    // Sliders up to the length move with it.
    choice.follow = () => fields.forEach((field) => field.place?.());
    return known ? "" : `This page has no pattern called “${link.values.pattern}”; causal is shown.`;
  },

  open(kinds) {
    choice.kinds = kinds;
    at("pattern").append(...kinds.map(({ name, title }) => new Option(title, name)));
    at("pattern").onchange = () => {
      // Parameters belong to the pattern that they were chosen for.
      link.set({ ...Object.fromEntries(Object.keys(link.parameters()).map((name) => [name, null])), pattern: at("pattern").value });
      choice.show();
      choice.heard();
    };
    const n = () => link.values.n ?? "1024";
    const keys = choice.number({
      name: "n", label: "length (keys)", scale: () => lengths, read: n,
      write: (value) => { link.set({ n: value }); queries.show(); choice.follow(); choice.heard(); },
    });
    const queries = choice.number({
      name: "queries", label: "queries", read: () => link.values.queries ?? n(),
      scale: () => scale(1, Math.max(Number(n()) || 1, Number(link.values.queries) || 1)),
      write: (value) => { link.set({ queries: ["", n()].includes(value) ? null : value }); choice.heard(); },
    });
    at("lengths").replaceChildren(keys, queries);
    return choice.show();
  },
};

// Pictures of the cases, as SVG.
"use strict";

const svg = (name, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

const make = (name, words = "") => Object.assign(document.createElement(name), { textContent: words });

const figure = (caption, picture) => {
  const element = make("figure");
  element.append(make("figcaption", caption), picture);
  return element;
};

// A bar an item [{ name, value, bad }], from `scale.least` to `scale.limit` at the right end or before it. A logarithmic scale
// has no zero that a bar could begin at: there it is a dot.
function bars(caption, items, { limit, least = 0, text }) {
  const most = Math.max(limit, ...items.map((item) => item.value));
  const share = least
    ? (value) => Math.max(0, Math.log(value / least) / Math.log(most / least))
    : (value) => value / most;
  const list = make("div");
  list.className = least ? "bars dots" : "bars";
  list.style.setProperty("--limit", share(limit));
  for (const { name, value, bad } of items) {
    const track = make("div");
    track.className = bad ? "track bad" : "track";
    track.style.setProperty("--share", share(value));
    track.append(make("i"));
    list.append(make("span", name), track, make("b", text(value)));
  }
  return figure(caption, list);
}

// Lines over two logarithmic axes, from [{ name, points: [[x, y]] }].
function lines(caption, series, texts, wide) {
  const [left, top, height, right, bottom] = [58, 10, 260, 76, 26];
  const width = wide - left - right;
  const all = series.flatMap(({ points }) => points);
  const range = (n) => [Math.min(...all.map((p) => p[n])), Math.max(...all.map((p) => p[n]))];
  const [[x0, x1], [low, high]] = [range(0), range(1)];
  // Whole decades, or halves of one where there is less.
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    ticks.push(10 ** power, ...(high / low < 100 ? [2 * 10 ** power, 5 * 10 ** power] : []));
  }
  const shown = ticks.filter((tick) => tick >= low / 2.5 && tick <= high * 2.5);
  const [y0, y1] = [Math.min(low, shown[0]), Math.max(high, shown.at(-1))];
  const x = (value) => left + (width * Math.log(value / x0)) / Math.log(x1 / x0);
  const y = (value) => top + height - (height * Math.log(value / y0)) / Math.log(y1 / y0);
  const picture = svg("svg", {
    width: wide, height: top + height + bottom, role: "img", "aria-label": caption,
  });
  for (const tick of shown) {
    picture.append(
      svg("line", { x1: left, x2: left + width, y1: y(tick), y2: y(tick), class: "grid" }),
      svg("text", { x: left - 6, y: y(tick) + 4, class: "end" }, texts.y(tick)),
    );
  }
  for (const tick of new Set(all.map((p) => p[0]))) {
    picture.append(svg("text", { x: x(tick), y: top + height + 18, class: "middle" }, texts.x(tick)));
  }
  // Names at the ends of their lines, pushed apart where these meet.
  const ends = series.map(({ points }, n) => ({ n, y: y(points.at(-1)[1]) })).sort((a, b) => a.y - b.y);
  ends.forEach((end, n) => { if (n > 0) end.y = Math.max(end.y, ends[n - 1].y + 15); });
  series.forEach(({ name, points }, n) => {
    const path = points.map(([px, py]) => `${x(px)},${y(py)}`).join(" ");
    const group = svg("g", { class: `series series-${n % 6}` }, svg("polyline", { points: path }));
    for (const [px, py] of points) {
      const said = svg("title", {}, `${name}, ${texts.x(px)}: ${texts.y(py)}`);
      group.append(svg("circle", { cx: x(px), cy: y(py), r: 3.5 }, said));
    }
    const label = svg("text", { x: left + width + 10, y: ends.find((end) => end.n === n).y + 4 }, name);
    group.append(label);
    picture.append(group);
  });
  return figure(caption, picture);
}

// Time by length of the patterns that were timed forward at several lengths, on one head of 64.
function growth(cases, wide) {
  const series = new Map();
  for (const it of cases) {
    const { of, heads, q_len, kv_len, head_dim } = it.shape;
    if (!it.hot || of !== "attention" || it.kernel !== "attention" || it.dtype !== "f32") continue;
    if (heads !== 1 || head_dim !== 64 || q_len !== kv_len) continue;
    // Gradients, and other scores, are other work.
    if (it.direction !== "forward" || it.score != null) continue;
    const points = series.get(it.pattern) ?? [];
    points.push([kv_len, clock(it.hot).summary.median_s]);
    series.set(it.pattern, points.sort((a, b) => a[0] - b[0]));
  }
  const several = [...series].filter(([, points]) => points.length > 1).map(([name, points]) => ({ name, points }));
  if (several.length === 0) return [];
  const texts = { x: (n) => `${n}`, y: format.roundSeconds };
  return [lines("Time of a call by sequence length (one head of 64, f32, logarithmic)", several, texts, wide)];
}

// All pictures that the cases allow, so many pixels wide.
function plots(cases, wide) {
  const compared = cases.filter((it) => it.verification?.worst_ratio != null);
  const rated = cases.filter((it) => it.rates?.roofline_percent != null);
  const bar = (of) => (it) => ({ name: it.name, value: of(it), bad: it.status === "failed" });
  const errors = compared.map(bar((it) => it.verification.worst_ratio));
  const rates = rated.map(bar((it) => it.rates.roofline_percent));
  return [
    ...growth(cases, wide),
    ...(rates.length
      ? [bars("Roofline %: the least time that the ceilings allow, over the time (line: 100 %)", rates,
        { limit: 100, text: format.percent })]
      : []),
    ...(errors.length
      ? [bars("Error/bound: the worst element of each case, from 0.0001, logarithmic (line: 1; above fails)", errors,
        { limit: 1, least: 1e-4, text: format.figures })]
      : []),
  ];
}

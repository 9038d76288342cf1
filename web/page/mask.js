// The picture of a mask: cells that the crate counts, in colours of the theme. It can be moved and brought closer.
"use strict";

// Pixels of a side at most, and pairs of a side at least.
const MOST_PIXELS = 768;
const LEAST_PAIRS = 8;

const mask = {
  canvas: at("mask"),
  // Queries and keys of what is shown, and the stretches in view: [first key, first query, keys, queries].
  sizes: [0, 0],
  view: [0, 0, 1, 1],
  // Blocks of the part that is shown, where they lie in its order.
  blocks: null,
  // What was drawn last: a picture of these stretches, and its bytes.
  last: null,
  // Called when other cells are needed.
  heard: () => {},

  // Another mask. Where its sizes are the same, what is in view stays.
  of([queries, keys], blocks) {
    mask.blocks = blocks;
    if (mask.sizes[0] === queries && mask.sizes[1] === keys) return;
    mask.sizes = [queries, keys];
    mask.view = [0, 0, keys, queries];
  },

  // The cells that are needed, as the crate takes them.
  window() {
    const [x, y, wide, high] = mask.view;
    const stretch = (first, size, most) => [Math.max(0, Math.floor(first)), Math.min(most, Math.ceil(first + size))];
    const keys = stretch(x, wide, mask.sizes[1]);
    const queries = stretch(y, high, mask.sizes[0]);
    const cells = ([start, end]) => Math.min(end - start, mask.canvas.width);
    return { queries, keys, rows: cells(queries), columns: cells(keys) };
  },

  // The legend's colours are those of the theme.
  colours() {
    const of = (name) => getComputedStyle(document.querySelector(`.legend .${name}`)).backgroundColor.match(/\d+/g).map(Number);
    const ink = getComputedStyle(at("says")).color;
    return { full: of("full"), partial: of("partial"), visited: of("visited"), skipped: of("skipped"), ink };
  },

  // Takes the cells of a window.
  take({ queries, keys, rows, columns }, bytes) {
    mask.last = { queries, keys, rows, columns, bytes, picture: null };
    mask.paint();
  },

  picture(last, { full, partial, visited, skipped }) {
    const picture = Object.assign(document.createElement("canvas"), { width: last.columns, height: last.rows });
    const context = picture.getContext("2d");
    const image = context.createImageData(last.columns, last.rows);
    for (let cell = 0; cell < last.rows * last.columns; cell++) {
      const [f, p, v] = last.bytes.subarray(3 * cell, 3 * cell + 3);
      // Shares are below 0.05 or so where single pairs lie in many: they still show, by their root.
      for (let n = 0; n < 3; n++) {
        const under = skipped[n] + ((visited[n] - skipped[n]) * v) / 255;
        const kept = Math.max(f, p) / 255;
        const colour = f + p === 0 ? under : (full[n] * f + partial[n] * p) / (f + p);
        image.data[4 * cell + n] = under + (colour - under) * kept;
      }
      image.data[4 * cell + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return picture;
  },

  paint() {
    const { canvas, last, view: [x, y, wide, high] } = mask;
    if (!last) return;
    const colours = mask.colours();
    last.picture ??= mask.picture(last, colours);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.fillStyle = `rgb(${colours.skipped})`;
    context.fillRect(0, 0, canvas.width, canvas.height);
    const [right, down] = [canvas.width / wide, canvas.height / high];
    const [keys, queries] = [last.keys, last.queries];
    const [left, top] = [(keys[0] - x) * right, (queries[0] - y) * down];
    context.drawImage(last.picture, left, top, (keys[1] - keys[0]) * right, (queries[1] - queries[0]) * down);
    mask.lines(context, colours.ink, [right, down]);
  },

  // Edges of blocks, and of pairs, where there is room between them.
  lines(context, ink, [right, down]) {
    const { canvas, view: [x, y, wide, high] } = mask;
    const edges = ([block_q, block_k], strength) => {
      if (block_k * right < 10 || block_q * down < 10) return;
      context.globalAlpha = strength;
      context.fillStyle = ink;
      for (let key = Math.ceil(x / block_k) * block_k; key <= x + wide; key += block_k) {
        context.fillRect(Math.round((key - x) * right), 0, 1, canvas.height);
      }
      for (let query = Math.ceil(y / block_q) * block_q; query <= y + high; query += block_q) {
        context.fillRect(0, Math.round((query - y) * down), canvas.width, 1);
      }
      context.globalAlpha = 1;
    };
    edges([1, 1], 0.12);
    if (mask.blocks) edges(mask.blocks, 0.35);
  },

  // Moves and brings closer; (left, top) is the point that stays, as shares of the picture.
  go([x, y, wide, high]) {
    const [queries, keys] = mask.sizes;
    const size = (value, most) => Math.min(most, Math.max(Math.min(LEAST_PAIRS, most), value));
    [wide, high] = [size(wide, keys), size(high, queries)];
    mask.view = [Math.min(Math.max(x, 0), keys - wide), Math.min(Math.max(y, 0), queries - high), wide, high];
    // A finger that drags a whole picture moves the page.
    mask.canvas.classList.toggle("closer", wide < keys || high < queries);
    mask.paint();
    mask.heard();
  },
  move: (left, top) => mask.go([mask.view[0] + left * mask.view[2], mask.view[1] + top * mask.view[3], mask.view[2], mask.view[3]]),
  zoom(times, left = 0.5, top = 0.5) {
    const [x, y, wide, high] = mask.view;
    const [queries, keys] = mask.sizes;
    const by = (size, most) => Math.min(most, Math.max(Math.min(LEAST_PAIRS, most), size / times)) / size;
    const [across, down] = [by(wide, keys), by(high, queries)];
    mask.go([x + left * wide * (1 - across), y + top * high * (1 - down), wide * across, high * down]);
  },
  whole: () => mask.go([0, 0, mask.sizes[1], mask.sizes[0]]),

  // What is under the pointer, in words.
  pointed(left, top) {
    const { last, view: [x, y, wide, high] } = mask;
    if (!last) return "";
    const cell = (at, [start, end], count) => Math.floor(((at - start) * count) / (end - start));
    const [column, row] = [cell(x + left * wide, last.keys, last.columns), cell(y + top * high, last.queries, last.rows)];
    if (column < 0 || row < 0 || column >= last.columns || row >= last.rows) return "";
    const ends = ([start, end], n, count) => [0, 1].map((more) => start + Math.floor(((n + more) * (end - start)) / count));
    const name = (one, [first, end]) => (end - first === 1 ? `${one} ${first}` : `${plural[one]} ${first} to ${end - 1}`);
    const plural = { query: "queries", key: "keys" };
    const [keys, queries] = [ends(last.keys, column, last.columns), ends(last.queries, row, last.rows)];
    const at = 3 * (row * last.columns + column);
    const [full, partial, visited] = [0, 1, 2].map((n) => (last.bytes[at + n] / 255) ** 2);
    const kept = full + partial;
    const block = full > 0 && partial === 0 ? "a full block" : full === 0 ? "a partial block" : "full and partial blocks";
    const share = kept > 0.995 ? "kept" : `about ${format.percent(100 * kept)} % kept`;
    const what = visited === 0 ? "skipped" : kept === 0 ? "visited, not kept" : `${share}, in ${block}`;
    return `${name("query", queries)}, ${name("key", keys)}: ${what}`;
  },

  open() {
    const { canvas } = mask;
    const place = ({ clientX, clientY }) => {
      const box = canvas.getBoundingClientRect();
      return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
    };
    // Fingers and the mouse, by their id.
    const down = new Map();
    canvas.onpointerdown = (event) => { down.set(event.pointerId, place(event)); canvas.setPointerCapture(event.pointerId); };
    canvas.onpointerup = canvas.onpointercancel = ({ pointerId }) => down.delete(pointerId);
    canvas.onpointermove = (event) => {
      const [now, before] = [place(event), down.get(event.pointerId)];
      text(at("pointed"), mask.pointed(...now) || "\u00a0");
      if (!before) return;
      const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
      down.set(event.pointerId, now);
      if (!other) return mask.move(before[0] - now[0], before[1] - now[1]);
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      mask.zoom(apart(now) / Math.max(apart(before), 0.01), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    };
    canvas.onpointerleave = () => text(at("pointed"), "\u00a0");
    canvas.ondblclick = (event) => mask.zoom(2, ...place(event));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      mask.zoom(Math.exp(-event.deltaY / 200), ...place(event));
    }, { passive: false });
    const keys = {
      ArrowLeft: () => mask.move(-0.2, 0), ArrowRight: () => mask.move(0.2, 0),
      ArrowUp: () => mask.move(0, -0.2), ArrowDown: () => mask.move(0, 0.2),
      "+": () => mask.zoom(2), "=": () => mask.zoom(2), "-": () => mask.zoom(0.5), 0: mask.whole, Home: mask.whole,
    };
    canvas.onkeydown = ({ key, ctrlKey, metaKey }) => {
      if (!keys[key] || ctrlKey || metaKey) return undefined;
      keys[key]();
      return false;
    };
    at("closer").onclick = () => mask.zoom(2);
    at("wider").onclick = () => mask.zoom(0.5);
    at("whole").onclick = mask.whole;
    new ResizeObserver(() => {
      const side = Math.min(MOST_PIXELS, Math.round(canvas.clientWidth * devicePixelRatio));
      if (side === 0 || side === canvas.width) return;
      Object.assign(canvas, { width: side, height: side });
      mask.paint();
      mask.heard();
    }).observe(canvas);
  },

  // In the colours of another theme.
  again() {
    if (mask.last) mask.last.picture = null;
    mask.paint();
  },
};

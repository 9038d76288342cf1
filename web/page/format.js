// Numbers for people.
"use strict";

const format = {
  seconds(s) {
    if (s < 1e-3) return `${(s * 1e6).toFixed(1)} µs`;
    return s < 1 ? `${(s * 1e3).toFixed(2)} ms` : `${s.toFixed(2)} s`;
  },
  // Of an axis: no figures that say nothing.
  roundSeconds(s) {
    const [unit, size] = s < 1e-3 ? ["µs", 1e6] : s < 1 ? ["ms", 1e3] : ["s", 1];
    return `${+(s * size).toPrecision(3)} ${unit}`;
  },
  bytes(count) {
    const [unit, size] = [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]].find(([, size]) => count >= size) ?? ["bytes", 1];
    return `${+(count / size).toFixed(1)} ${unit}`;
  },
  // Three figures, also of small numbers.
  figures: (x) => (x >= 100 ? x.toFixed(0) : x.toPrecision(3)),
  percent: (x) => x.toFixed(1),
  ceiling(kind, value) {
    if (kind === "launch") return format.seconds(value);
    const flop = kind.startsWith("fma") || kind.startsWith("matrix");
    return `${format.figures(value * 1e-9)} ${flop ? "GFLOP/s" : "GB/s"}`;
  },
};

// The clock that decides: the device's where it is sound, else the wall's.
const clock = (timing) => timing.timestamps ?? timing.wall;

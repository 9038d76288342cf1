// Numbers, and sums of them, for the cases.

/** Numbers that look random and are the same each time, in -1 .. 1. */
export const numbers = (count, seed) =>
  Float32Array.from({ length: count }, (_, n) => Math.sin(12.9898 * (n + 1) + 78.233 * seed) * 43758.5453 % 1);
export const words = (count, seed, below) => Uint32Array.from(numbers(count, seed), (x) => Math.floor(Math.abs(x) * below));
export const range = (count) => [...Array(count).keys()];
export const sum = (list) => list.reduce((a, b) => a + b, 0);
export const dot = (count, term) => sum(range(count).map(term));

//! A device that is correct by WGSL's rules and as wrong as they allow: each operation is rounded to a neighbour of our choice. Values are
//! f64 that hold f32 numbers exactly.

use wgpu_attention::reference::Counter;
use wgpu_attention::{Element, ElementType};

/// Which neighbour an inexact result goes to, and which way the error of exp2, log2 and division points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Nearest,
    Up,
    Down,
    TowardZero,
    Random,
    /// Against the result: weights of values above the output up, the others down, sums of the output up, of the
    /// weights down.
    Sided,
}

impl Mode {
    pub(crate) const ALL: [Self; 6] =
        [Self::Nearest, Self::Up, Self::Down, Self::TowardZero, Self::Random, Self::Sided];
}

/// The device.
pub(crate) struct Device {
    pub(crate) mode: Mode,
    /// Subnormal numbers become 0.
    pub(crate) flush: bool,
    /// For [`Mode::Sided`]: the direction now wanted.
    pub(crate) push: f64,
    draw: Counter,
    drawn: u64,
}

impl Device {
    pub(crate) fn new(mode: Mode, flush: bool, seed: u64) -> Self {
        Self { mode, flush, push: 1.0, draw: Counter::new(seed, 99), drawn: 0 }
    }

    fn random(&mut self) -> f64 {
        self.drawn += 1;
        2.0 * self.draw.uniform(self.drawn) - 1.0
    }

    /// In [-1, 1]: how much of an allowed error is used, and in which direction.
    fn direction(&mut self, x: f64) -> f64 {
        match self.mode {
            Mode::Nearest => 0.0,
            Mode::Up => 1.0,
            Mode::Down => -1.0,
            Mode::TowardZero => -x.signum(),
            Mode::Random => self.random(),
            Mode::Sided => self.push,
        }
    }

    pub(crate) fn flushed(&self, x: f64, smallest: f64) -> f64 {
        if self.flush && x.abs() < smallest { 0.0 } else { x }
    }

    /// The f32 that stands for the real number x + rest, |rest| below x's last place in f64.
    fn round(&mut self, x: f64, rest: f64) -> f64 {
        let near = x as f32;
        let above = match f64::from(near) - x {
            0.0 if rest == 0.0 => return self.flushed(x, f64::from(f32::MIN_POSITIVE)),
            0.0 => rest < 0.0,
            difference => difference > 0.0,
        };
        let (low, high) = if above { (near.next_down(), near) } else { (near, near.next_up()) };
        let direction = self.direction(x);
        let chosen = match self.mode {
            Mode::Nearest => near,
            _ if direction >= 0.0 => high,
            _ => low,
        };
        self.flushed(f64::from(chosen), f64::from(f32::MIN_POSITIVE))
    }

    pub(crate) fn add(&mut self, a: f64, b: f64) -> f64 {
        let sum = a + b;
        let of_b = sum - a;
        self.round(sum, (a - (sum - of_b)) + (b - of_b))
    }

    pub(crate) fn mul(&mut self, a: f64, b: f64) -> f64 {
        self.round(a * b, 0.0)
    }

    /// Fused or split: WGSL allows both.
    pub(crate) fn fma(&mut self, a: f64, b: f64, c: f64) -> f64 {
        if self.mode == Mode::Nearest {
            return self.add(a * b, c);
        }
        let product = self.mul(a, b);
        self.add(product, c)
    }

    /// y with `ulps` of error, used as the mode says.
    pub(crate) fn within(&mut self, y: f64, ulps: f64) -> f64 {
        let near = y as f32;
        let ulp = f64::from(near.abs().next_up()) - f64::from(near.abs());
        let off = y + self.direction(y) * ulps * ulp;
        // Back towards y: conversion to f32 must not leave the interval.
        let stored = off as f32;
        let stored = match (f64::from(stored) - y).abs() > ulps * ulp {
            true if f64::from(stored) > y => stored.next_down(),
            true => stored.next_up(),
            false => stored,
        };
        self.flushed(f64::from(stored), f64::from(f32::MIN_POSITIVE))
    }

    pub(crate) fn exp2(&mut self, x: f64) -> f64 {
        // 6e38 ULP of 0 would be 1e-6.
        if x < -200.0 {
            return 0.0;
        }
        self.within(x.exp2(), 3.0 + 2.0 * x.abs())
    }

    pub(crate) fn div(&mut self, a: f64, b: f64) -> f64 {
        self.within(a / b, 2.5)
    }

    pub(crate) fn log2(&mut self, x: f64) -> f64 {
        if (0.5..=2.0).contains(&x) {
            let off = self.direction(1.0) * 2f64.powi(-21) * 0.99;
            return self.round(x.log2() + off, 0.0);
        }
        self.within(x.log2(), 3.0)
    }

    /// `log`, of which WGSL promises the same.
    #[allow(dead_code, reason = "only LSH attention counts in base e")]
    pub(crate) fn ln(&mut self, x: f64) -> f64 {
        if (0.5..=2.0).contains(&x) {
            let off = self.direction(1.0) * 2f64.powi(-21) * 0.99;
            return self.round(x.ln() + off, 0.0);
        }
        self.within(x.ln(), 3.0)
    }

    /// Reads an element from memory.
    pub(crate) fn read<E: Element>(&self, x: E) -> f64 {
        self.flushed(x.into(), smallest(E::TYPE))
    }

    /// Writes an element to memory.
    pub(crate) fn store(&mut self, x: f64, output: ElementType) -> f64 {
        // Grid of the type around |x|: 11 or 8 significant bits.
        let (bits, lowest) = match output {
            ElementType::F32 => return x,
            ElementType::F16 => (11, -24),
            ElementType::Bf16 => (8, -133),
        };
        if x == 0.0 {
            return x;
        }
        let exponent = (x.abs().log2().floor() as i32 - (bits - 1)).max(lowest);
        let step = 2f64.powi(exponent);
        let direction = self.direction(x);
        let steps = match self.mode {
            Mode::Nearest => (x / step).round_ties_even(),
            _ if direction >= 0.0 => (x / step).ceil(),
            _ => (x / step).floor(),
        };
        self.flushed(steps * step, smallest(output))
    }
}

fn smallest(element: ElementType) -> f64 {
    match element {
        ElementType::F16 => 2f64.powi(-14),
        _ => f64::from(f32::MIN_POSITIVE),
    }
}

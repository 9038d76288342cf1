//! What a feature map is: rows of numbers in, rows of features out, each with how far a kernel's may be off.

/// One rounding of f32 to either neighbour, and one unit in the last place.
pub(super) const U: f64 = 1.0 / 8_388_608.0;
/// The smallest normal f32: what a flush may lose.
pub(super) const TINY: f64 = f32::MIN_POSITIVE as f64;

/// A number, and how far a kernel's may be from it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Known {
    pub(crate) value: f64,
    pub(crate) error: f64,
}

impl Known {
    pub(super) fn new(value: f64, error: f64) -> Self {
        Self { value, error }
    }
}

/// A query or a key before the map: y = scale P x or x itself, `[m]`, and |x|^2 / (2 sqrt d).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) y: Vec<Known>,
    pub(crate) half: Known,
}

impl Row {
    /// The largest y.
    pub(super) fn top(&self) -> f64 {
        self.y.iter().map(|y| y.value).fold(f64::NEG_INFINITY, f64::max)
    }

    /// How far any y may be off, and so the largest.
    pub(super) fn most_error(&self) -> f64 {
        self.y.iter().map(|y| y.error).fold(0.0, f64::max)
    }
}

/// A query or a key behind the map: e^log_weight phi.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Features {
    pub(crate) phi: Vec<Known>,
    pub(crate) log_weight: Known,
    /// A factor that a kernel may give all of phi, as an exponent: it cancels but for the denominator's eps.
    pub(crate) common: f64,
}

impl Features {
    /// Features as they are.
    pub(super) fn plain(phi: Vec<Known>) -> Self {
        Self { phi, log_weight: Known::default(), common: 0.0 }
    }
}

/// A feature map in f64. WGSL has it in `shaders/linear/`, under the same name.
pub(crate) trait Map {
    /// The features of a query.
    fn query(&self, row: &Row) -> Features;

    /// The features of all keys of a head that some query sees.
    fn keys(&self, rows: &[Row]) -> Vec<Features> {
        rows.iter().map(|row| self.query(row)).collect()
    }

    /// What a change of each y changes of its feature phi.
    fn slope(&self, row: &Row, phi: &[Known]) -> Vec<Known>;
}

/// The part of a feature that an eps was not added to.
pub(super) fn less(phi: &[Known], eps: f64) -> Vec<Known> {
    let one =
        |phi: &Known| Known::new(phi.value - eps, phi.error + 2.0 * U * (phi.value.abs() + phi.error) + TINY);
    phi.iter().map(one).collect()
}

/// exp of x, an exponent off by up to `error`: 3 + 2 |x| units in the last place, by what WGSL promises.
pub(super) fn exp(x: f64, error: f64) -> Known {
    let value = x.exp();
    if value > 1.7e38 {
        return Known::new(value, f64::INFINITY);
    }
    let relative = error.exp_m1() + (3.0 + 2.0 * (x.abs() + error)) * U * (1.0 + error.exp_m1());
    // Far below 1 the kernel may have 0, or e^-100.
    let flushed = if x - error < -87.0 { value + 1e-38 } else { 0.0 };
    Known::new(value, 1.01 * relative * value + flushed + TINY)
}

/// The sum of a number and an exact one.
pub(super) fn plus(x: Known, y: f64) -> Known {
    let value = x.value + y;
    Known::new(value, x.error + U * (value.abs() + x.error) + TINY)
}

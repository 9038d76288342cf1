//! The bounds added up, row by row: section 3 of the derivation in `bound.rs`.

use super::call::{GradientCall, Pair, Row};
use super::errors::{Common, PairErrors, Route, RowBound, added, read};
use super::exact::{by_key, elements};
use crate::reference::rounding::{HUGE, TINY, gamma, min_normal, promised};
use crate::reference::row::{LEAST_TILE, chain};
use crate::reference::{Position, Tiles};
use crate::{KernelPath, Result};

/// What a kernel makes of P and ds' before they meet columns of tensors: section 4.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// u_P.
    rounding: f64,
    /// phi.
    lost: f64,
    /// What is lost of the smallest.
    least: f64,
}

impl Operands {
    pub(super) fn of(path: KernelPath) -> Self {
        match path {
            KernelPath::Scalar => Self { rounding: 0.0, lost: 0.0, least: 0.0 },
            KernelPath::Cooperative => {
                Self { rounding: 2f64.powi(-11), lost: 2f64.powi(-28), least: 2f64.powi(-140) }
            }
        }
    }

    /// What may be lost of each factor of a row whose largest is `most`.
    fn lost_of(&self, most: f64) -> f64 {
        (self.lost * most).max(self.least)
    }
}

/// What is known of a row, with the errors of its pairs where something is.
pub(super) struct BoundedRow {
    bound: RowBound,
    pairs: Vec<PairErrors>,
    dq: RowDq,
}

/// B_dq of a row.
enum RowDq {
    /// All elements have this one.
    Everywhere(f64),
    /// The sums of each element.
    Of { sums: Vec<DqSum>, keys: usize, chain: usize },
}

impl BoundedRow {
    pub(super) fn new(
        call: &GradientCall<'_>,
        row: &Row,
        route: Route<'_>,
        operands: Operands,
    ) -> Result<Self> {
        let bound = RowBound::new(call, row, route)?;
        let common = match &bound {
            _ if row.keys().is_empty() => return Ok(Self::without_pairs(bound, 0.0)),
            RowBound::Known(common) => common,
            RowBound::Nothing => return Ok(Self::without_pairs(bound, f64::INFINITY)),
            RowBound::NotFinite => return Ok(Self::without_pairs(bound, f64::NAN)),
        };
        let each = row.keys().iter().zip(&row.pairs);
        let pairs: Vec<_> = each.map(|(&j, pair)| PairErrors::new(call, row, common, j, pair)).collect();
        let sums = dq_sums(call, row, common, &pairs, operands);
        let dq = RowDq::Of { sums, keys: pairs.len(), chain: common.chain };
        Ok(Self { bound, pairs, dq })
    }

    fn without_pairs(bound: RowBound, dq: f64) -> Self {
        Self { bound, pairs: vec![], dq: RowDq::Everywhere(dq) }
    }
}

/// In which order a kernel meets the queries of a key.
#[derive(Clone, Copy)]
pub(super) enum Queries<'a> {
    /// Head after head, ascending.
    InOrder,
    /// So many tiles of a head for each key.
    InTiles(Tiles<'a>),
    /// Nobody knows.
    Anyhow,
}

/// The sums of the rows so far.
pub(super) struct ErrorSums<'a> {
    call: &'a GradientCall<'a>,
    queries: Queries<'a>,
    /// By the name of a tensor, additions in a row at most.
    chains: &'a [(&'static str, usize)],
    operands: Operands,
    /// One more than the most parts of a row: transposing may put an empty one before the others.
    parts: usize,
    dq: Vec<RowDq>,
    keys: Vec<KeySums>,
    /// Of each element of each tensor, with the pairs, or rows, that it is of.
    terms: Vec<(&'static str, Vec<(Sum, usize)>)>,
}

/// Of a key.
struct KeySums {
    dk: Vec<Sum>,
    dv: Vec<Sum>,
    /// The largest factor of each.
    most: [f64; 2],
    pairs: usize,
    /// Tiles of ascending queries that see it, and the head and tile of the last.
    tiles: usize,
    last: Option<(usize, usize)>,
    /// A row that sees it is not finite; of one nothing is known.
    not_finite: bool,
    unknown: bool,
}

impl<'a> ErrorSums<'a> {
    pub(super) fn new(
        call: &'a GradientCall<'a>,
        queries: Queries<'a>,
        (chains, operands): (&'a [(&'static str, usize)], Operands),
    ) -> Self {
        let shape = call.shape();
        let zeros = |n| vec![Sum::default(); n];
        let key = |_| KeySums {
            dk: zeros(shape.head_dim),
            dv: zeros(shape.value_dim),
            most: [0.0; 2],
            pairs: 0,
            tiles: 0,
            last: None,
            not_finite: false,
            unknown: false,
        };
        let keys = (0..shape.key_rows().iter().product()).map(key).collect();
        let tensors = call.call.attention.score.tensors(shape).into_iter();
        let terms = tensors.map(|tensor| (tensor.name, vec![(Sum::default(), 0); tensor.len])).collect();
        Self { call, queries, chains, operands, parts: 0, dq: vec![], keys, terms }
    }

    /// Adds the next rows.
    pub(super) fn add(&mut self, rows: &[Row], errors: Vec<BoundedRow>) {
        let (call, storage) = (self.call, self.call.call.attention.storage);
        let smallest = [storage.q, storage.out].map(min_normal);
        by_key(call.shape(), rows, &mut self.keys, |sums, n, key| match &errors[n].bound {
            RowBound::Known(_) => {
                sums.add(call, &rows[n], &rows[n].pairs[key], &errors[n].pairs[key], smallest)
            }
            RowBound::Nothing => sums.unknown = true,
            RowBound::NotFinite => sums.not_finite = true,
        });
        if !self.terms.is_empty() {
            rows.iter().zip(&errors).for_each(|(row, errors)| self.add_terms(row, errors));
        }
        for BoundedRow { bound, dq, .. } in errors {
            if let RowBound::Known(common) = bound {
                self.parts = self.parts.max(common.parts);
            }
            self.dq.push(dq);
        }
    }

    fn add_terms(&mut self, row: &Row, errors: &BoundedRow) {
        let terms = &mut self.terms;
        let mut add = |tensor: usize, n: usize, error: f64, most: f64| {
            let (sum, pairs) = &mut terms[tensor].1[n];
            (sum.error, sum.size, *pairs) = (sum.error + error, sum.size + most, *pairs + 1);
        };
        let everywhere = match errors.bound {
            RowBound::Known(_) => 0.0,
            RowBound::Nothing => f64::INFINITY,
            RowBound::NotFinite => f64::NAN,
        };
        if everywhere != 0.0 {
            for pair in &row.pairs {
                elements(&pair.by).for_each(|(tensor, n, _)| add(tensor, n, everywhere, 0.0));
            }
        }
        for (pair, errors) in row.pairs.iter().zip(&errors.pairs) {
            let ds = errors.ds;
            for by in read(&pair.by, row, self.call.scale()) {
                let largest = by.by.score.abs() + by.by.error;
                let error = ds.error * largest + ds.score.abs() * by.by.error;
                add(by.tensor, by.n, error, (ds.score.abs() + ds.error) * largest);
            }
        }
        if let Some((_, sinks)) = terms.iter_mut().find(|(name, _)| *name == "sinks") {
            let (sum, rows) = &mut sinks[row.at.head];
            let ds = errors.bound.sink(row);
            (sum.error, sum.size) = (sum.error + ds.error, sum.size + ds.score.abs() + ds.error);
            *rows += usize::from(!row.keys().is_empty());
        }
    }

    fn scale(&self) -> f64 {
        self.call.scale().abs()
    }

    /// gamma of a sum of n pairs, each with one product, and one more for relative rows and for segments each.
    fn sum_error(&self, n: usize) -> f64 {
        gamma(self.products() * n + 1 + self.parts.max(1) + 8)
    }

    fn products(&self) -> usize {
        1 + self.call.call.attention.score.rules().filter(|rule| rule.in_product()).count()
    }

    /// B_dq; `dq` is the gradient.
    pub(super) fn dq(&self, dq: &[f64]) -> Vec<f64> {
        let (scale, dim) = (self.scale(), self.call.shape().head_dim);
        let of_row = |(row, dq): (&RowDq, &[f64])| -> Vec<f64> {
            match row {
                RowDq::Everywhere(bound) => vec![*bound; dq.len()],
                RowDq::Of { sums, keys, chain } => {
                    let flushes = (2 * self.products() * keys + 4) as f64 * TINY * (1.0 + scale);
                    let error = self.sum_error(*chain);
                    let bound = |sum: &DqSum| {
                        let rounded = self.operands.rounding * sum.size + sum.lost;
                        let rest = sum.rest + error * sum.size + (1.0 + error) * rounded;
                        checked(sum.weights + scale * rest + flushes, sum.size * scale.max(1.0))
                    };
                    sums.iter().map(bound).collect()
                }
            }
        };
        self.dq.iter().zip(dq.chunks(dim)).flat_map(of_row).collect()
    }

    /// B_dk and B_dv.
    pub(super) fn dk_and_dv(&self) -> (Vec<f64>, Vec<f64>) {
        let factor = self.call.call.most_share();
        let of_key = |(n, key): (usize, &KeySums)| -> (Vec<f64>, Vec<f64>) {
            let everywhere = |x: f64| (vec![x; key.dk.len()], vec![x; key.dv.len()]);
            match key {
                KeySums { not_finite: true, .. } => return everywhere(f64::NAN),
                KeySums { unknown: true, .. } => return everywhere(f64::INFINITY),
                KeySums { pairs: 0, .. } => return everywhere(0.0),
                _ => {}
            }
            let finish = |sums: &[Sum], most: f64, scale: f64, factor: f64| {
                let flushes = (3 * self.products() * key.pairs + 4) as f64 * TINY * scale.max(1.0) * factor;
                let g = self.sum_error(self.chain(n, key));
                let (rounding, lost) = (self.operands.rounding, self.operands.lost_of(most));
                let bound = |sum: &Sum| {
                    let rounded = (1.0 + g) * (rounding * sum.size + lost * sum.plain);
                    checked(scale * (sum.bound(g) + rounded) + flushes, sum.size * scale.max(1.0))
                };
                sums.iter().map(bound).collect()
            };
            let [of_dk, of_dv] = key.most;
            (finish(&key.dk, of_dk, self.scale(), 1.0), finish(&key.dv, of_dv, 1.0, factor))
        };
        let (dk, dv): (Vec<_>, Vec<_>) = self.keys.iter().enumerate().map(of_key).unzip();
        (dk.concat(), dv.concat())
    }

    /// The longest chain of additions over the queries of the n-th key.
    fn chain(&self, n: usize, key: &KeySums) -> usize {
        let [_, kv_heads, kv_len] = self.call.shape().key_rows();
        let group = self.call.shape().heads / kv_heads;
        let (batch, kv_head, j) = (n / kv_len / kv_heads, n / kv_len % kv_heads, n % kv_len);
        let tiles = match self.queries {
            Queries::InOrder => key.tiles,
            Queries::InTiles(tiles) => {
                let heads = kv_head * group..(kv_head + 1) * group;
                heads.map(|head| tiles(Position { batch, head, i: j })).sum()
            }
            Queries::Anyhow => key.pairs,
        };
        chain(key.pairs, tiles)
    }

    /// B_dx of each term's tensor.
    pub(super) fn terms(&self) -> Vec<(&'static str, Vec<f64>)> {
        let of_tensor = |(name, sums): &(&'static str, Vec<(Sum, usize)>)| {
            let most =
                self.chains.iter().find(|(own, _)| own == name).map_or(usize::MAX, |(_, chain)| *chain);
            let bound = |&(sum, pairs): &(Sum, usize)| match pairs {
                0 => 0.0,
                _ if sum.error.is_nan() => f64::NAN,
                _ => {
                    let error = self.sum_error(pairs.min(most));
                    checked(sum.bound(error) + (3 * pairs + 4) as f64 * TINY, sum.size)
                }
            };
            (*name, sums.iter().map(bound).collect())
        };
        self.terms.iter().map(of_tensor).collect()
    }
}

impl KeySums {
    /// Adds a pair; `smallest` of q and of dout.
    fn add(
        &mut self,
        call: &GradientCall<'_>,
        row: &Row,
        pair: &Pair,
        errors: &PairErrors,
        smallest: [f64; 2],
    ) {
        self.pairs += 1;
        let tile = (row.at.head, row.at.i / LEAST_TILE as usize);
        self.tiles += usize::from(self.last.replace(tile) != Some(tile));
        let (pulled, most) = (errors.pulled.error, errors.pulled.score.abs() + errors.pulled.error);
        self.most = [self.most[0].max(most), self.most[1].max(errors.met[1])];
        for (sum, q) in self.dk.iter_mut().zip(&row.q) {
            sum.add(pulled, most, q.abs(), smallest[0]);
        }
        if !pair.by.products.is_empty() {
            for (c, sum) in self.dk.iter_mut().enumerate() {
                let (_, u) = added(&pair.by, |added| &added.products.k, call.scale(), c);
                sum.add(pulled, most, u, TINY);
            }
        }
        for (sum, x) in self.dv.iter_mut().zip(&row.dout) {
            sum.add(errors.met[0], errors.met[1], x.abs(), smallest[1]);
        }
    }
}

/// Infinite where a sum of that size may overflow.
fn checked(bound: f64, size: f64) -> f64 {
    if size < HUGE { promised(bound) } else { f64::INFINITY }
}

/// A sum of products with the elements of a row.
#[derive(Clone, Copy, Default)]
struct Sum {
    error: f64,
    size: f64,
    /// Of |x| alone.
    plain: f64,
}

impl Sum {
    /// A factor of size `most` at most, known within `error`, times x.
    fn add(&mut self, error: f64, most: f64, x: f64, smallest: f64) {
        self.error += error * x + if x < smallest { most * x } else { 0.0 };
        self.size += most * x;
        self.plain += x;
    }

    fn bound(&self, sum_error: f64) -> f64 {
        self.error + sum_error * self.size
    }
}

/// What a pair gives to B_dq, but for |k_c|.
struct Factors {
    /// |t f| p expm1(epsilon), and |t f| a.
    own: f64,
    all: f64,
    /// p f, with its sign, and a |f|.
    mean: f64,
    off_mean: f64,
    /// P (|f| b_dp + b_f T) + F Z + 2^-125.
    pair: f64,
    /// P F T.
    size: f64,
    /// |ds'| + B_ds'.
    most: f64,
}

impl Factors {
    fn new(pair: &Pair, errors: &PairErrors) -> Self {
        let slope = pair.by.slope;
        let (f, b_f) = (slope.score.abs(), slope.error);
        let tf = (errors.t * f).abs();
        let spread = f * errors.b_dp + b_f * errors.t_most;
        Self {
            own: tf * pair.p * errors.own,
            all: tf * errors.a,
            mean: pair.p * slope.score,
            off_mean: errors.a * f,
            pair: errors.most * spread + (f + b_f) * errors.flushes + 2.0 * TINY,
            size: errors.most * (f + b_f) * errors.t_most,
            most: errors.pulled.score.abs() + errors.pulled.error,
        }
    }
}

/// The sums of [`Factors`] over the keys, for one column of k.
#[derive(Clone, Copy, Default)]
struct Column {
    own: f64,
    all: f64,
    mean: f64,
    off_mean: f64,
    pair: f64,
    size: f64,
    /// Of |k_c| alone.
    plain: f64,
}

/// B_dq of an element, but for what follows from the number of parts: weights + |scale| (rest + gamma size).
struct DqSum {
    weights: f64,
    rest: f64,
    size: f64,
    /// What operands in 16 bits lose of their smallest.
    lost: f64,
}

/// Adds up the pairs of a row.
fn dq_sums(
    call: &GradientCall<'_>,
    row: &Row,
    common: &Common,
    errors: &[PairErrors],
    operands: Operands,
) -> Vec<DqSum> {
    let smallest = min_normal(call.call.attention.storage.kv);
    let mut largest = 0.0f64;
    let mut columns = vec![Column::default(); row.q.len()];
    for ((&j, pair), errors) in row.keys().iter().zip(&row.pairs).zip(errors) {
        let factors = Factors::new(pair, errors);
        largest = largest.max(factors.most);
        let of_terms = !pair.by.products.is_empty();
        for (c, (column, k)) in columns.iter_mut().zip(call.call.k(row.at, j)).enumerate() {
            let added = if of_terms {
                added(&pair.by, |added| &added.products.q, call.scale(), c)
            } else {
                (0.0, 0.0)
            };
            column.add(&factors, k, added, smallest);
        }
    }
    let (moved, most) = (common.lambda.exp_m1(), common.lambda.exp());
    let scale = call.scale().abs();
    let sum = |(column, dq): (&Column, &f64)| {
        let own = moved * dq.abs() + most * scale * column.own;
        // NaN where a weight is 0 and its error infinite; `min` then takes the other.
        let weights = own.min(scale * column.all);
        let rest = common.b_d * (column.mean.abs() + column.off_mean) + column.pair;
        DqSum { weights, rest, size: column.size, lost: operands.lost_of(largest) * column.plain }
    };
    columns.iter().zip(&row.dq).map(sum).collect()
}

impl Column {
    /// Adds a pair with an element of k, and with what relative rows add to it, that and its size.
    fn add(&mut self, by: &Factors, k: f64, (added, size): (f64, f64), smallest: f64) {
        let x = k.abs() + size;
        self.own += by.own * (k + added).abs();
        self.all += by.all * (k + added).abs();
        self.mean += by.mean * (k + added);
        self.off_mean += by.off_mean * x;
        let lost = if k.abs() < smallest { k.abs() } else { 0.0 } + if size < TINY { size } else { 0.0 };
        self.pair += by.pair * x + by.most * lost;
        // Infinite where a pair is.
        self.size += by.size.max(by.most) * x;
        self.plain += x;
    }
}

//! How far a correct kernel may be from the gradients, per element.
//!
//! The analysis of the forward pass (`reference/bound.rs`, whose u, E, gamma, delta_ij, x_ij, w+, dw, K, R and B_c are meant here),
//! continued. It asks of a kernel that it computes, from the state (m, l) and the out that the forward pass left,
//!
//! ```text
//! e = exp(min(s - m, 0)) / l       ds = e (do . v - D)       D = do . out            1/l, a common factor, anywhere
//! dq = scale sum ds f k            dk = scale sum ds f q     dv = sum e do           f the slope of the score by scale q . k
//! ```
//!
//! with s and f as the terms of the score have them, in any order of summation, part after part. A pair's score may be another one here
//! than in the forward pass, within delta of the exact one as well: the exponent is kept at most 0, so that no weight is above 1.
//!
//! # 1. The row
//!
//! exp(m) l is the sum of the exact weights but for the errors of the forward pass; 1/l is a division (2.5 ULP), its uses are products:
//!
//! ```text
//! Lambda = max( ln sum_j p e^epsilon, -ln sum_j p e^-epsilon ) + gamma_K / (1 - gamma_K) + 2.5 E + 3 u
//! ```
//!
//! D takes over what is wrong with out. What the weights' errors do to out, they do along t_j = do . v_j - D, not column by column;
//! the rest of out's error, its storage included, counts by column (R_c: B_c without min(B1, B2), and all that is added to it):
//!
//! ```text
//! b_row = min( sum_j dw |t|, max over reachable j of |t| + sum over the others of w+ |t| ) / (1 - gamma_K) + sum_c |do_c| R_c
//! b_D   = (1 + g) b_row + g sum_c |do_c| (|o_c| + B_c),     g = gamma_{dv+3}
//! ```
//!
//! # 2. The pair
//!
//! A computed weight is p exp(lambda + e), |lambda| <= Lambda common to the row and |e| <= epsilon_ij its own, with one exponential:
//!
//! ```text
//! epsilon = (delta + x (2 u + 2 E log2 e + E)) (1 + 2^-10) + 3 E
//! a       = min( p expm1(epsilon + Lambda), 1 + 2^-9 ) + 2^-126          its error
//! P       = min( p exp(epsilon + Lambda), 1 + 2^-9 ) + 2^-126            and itself
//! b_dp    = gamma_{dv+3} sum_c |do_c v_jc|
//! T       = |t| + (1 + 2u)(b_dp + b_D)
//! Z       = 2^-126 (8 dv + 8 + sum_c |v_jc| + sum_c |o_c| + T)           flushes on the way to t
//! B_ds    = a |t| + P (1 + 2u)(b_dp + b_D) + gamma_3 P T + Z
//! B_ds'   = F B_ds + b_f |ds| + u F (|ds| + B_ds) + 2^-125               f within b_f, F = |f| + b_f
//! ```
//!
//! # 3. The sums
//!
//! Of a row with m keys, of a key with N pairs over the heads of its group, of an element of a term's tensor x with n pairs. m', N' and n' are
//! the longest chains of additions over them: tiles are added up by themselves (K of the forward pass), so that m' = min(m, 128 + tiles), N'
//! likewise; n' is what the kernel says, or n.
//!
//! ```text
//! B_dv = sum a |do_c| + gamma_{N'+parts+8} sum P |do_c| + (3N + 4) 2^-126
//! B_dk = |scale| [ sum B_ds' |q_c| + gamma_{N'+parts+8} sum (|ds'| + B_ds') |q_c| ] + (3N + 4) 2^-126 max(1, |scale|)
//! B_dx = sum ( B_ds X + |ds| b_x ) + gamma_{n'+parts+8} sum (|ds| + B_ds) X + (3n + 4) 2^-126      ds/dx within b_x, X the sum of both
//! B_dq = min( expm1(Lambda) |dq_c| + e^Lambda |scale| sum p expm1(epsilon) |t f k_c|,  |scale| sum a |t f k_c| )
//!      + |scale| b_D ( |sum p f k_c| + sum a |f k_c| )
//!      + |scale| sum P (|f| b_dp + b_f T) |k_c| + |scale| gamma_{m'+parts+8} sum P F T |k_c|
//!      + |scale| sum (F Z + 2^-125) |k_c| + (2m + 4) 2^-126 (1 + |scale|)
//! ```
//!
//! With relative rows dq has k + r in place of k, dk q + u in place of q: above, sizes are then |k| + |r| and |q| + |u|, and m, N and the chains
//! count twice, for the two may be added up apart. With segments dq has k + e, or k + r + e, and they count once more.
//!
//! Dropout gives each pair a share c, 0 or 1 / (1 - rate), of its value: do . v and sum |do v| are c times as large, with two roundings more, in dv
//! a and P are c (a + gamma_2 P) and c P, and flushes in Z and in dv count 1 / (1 - rate) times.
//!
//! # 4. Operands in 16 bits
//!
//! On cooperative matrices P and ds', which meet columns of tensors there, are rounded to f16 (`shaders/backward/cooperative.wgsl`); ds has the
//! unrounded weight in it. Those of a row of the pass and a tile of its columns are first multiplied by a power of two, exactly, by which the
//! largest of them, M, comes to lie in [2^14, 2^15): no overflow, for 2^15 is f16's, too, and what was scaled to 2^-14 or more is a normal number,
//! rounded to the nearer neighbour: u_P = 2^-11 of it. What was smaller may be lost whole, or become the smallest number: 2^-14 at most, which is
//! phi = 2^-28 of M, as M is 2^14 at least. No factor passes 2^126, so that where M is below 2^-112 the loss is at most 2^-140. The
//! inverse factor is exact, too; a flush behind it is one of those that are counted. Products of two numbers of f16 are exact in f32, and a tile is summed
//! up by itself, as elsewhere. So to the sums of section 3 come, with w for P or |ds'| + B_ds', x for |do_c|, |q_c| or |k_c|, g for their gamma,
//! and M' the largest w of the row of the pass, whatever its tiles:
//!
//! ```text
//! (1 + g) [ u_P sum w x + max(phi M', 2^-140) sum x ]                times |scale| in dq and dk
//! ```
//!
//! The gradients of the terms' tensors are sums of f32 on every path.
//!
//! A sink has no value: its row gives ds = -p D, by the pair's formulas with t = -D, do . v and its error 0, and delta 0.
//!
//! In dq the common factor moves the gradient by a share of itself, and D is wrong for all keys alike, so along the mean key. Elements of
//! q, k, v and do that are subnormal in their storage may be read as 0: the products that hold them are added. At the end the storage of
//! the gradient, by its element type. A row without keys, and a key that no query sees, get exactly 0.
//!
//! Infinite, for nothing is promised, where the forward bound is; where |scale| log2(e) |k_c|, sum |do v|, T F, or a sum of sizes above reaches 2^127; and
//! from 2^22 pairs.

use super::call::{GradientCall, Row};
use super::error_sums::{BoundedRow, ErrorSums, Operands, Queries};
use super::errors::Route;
use super::exact::{Gradients, Sums, blocks};
use crate::pattern::Pattern;
use crate::reference::layer::Bounded;
use crate::reference::rounding::written;
use crate::reference::{Position, Tiles, Walk, WeightFormat};
use crate::{Attention, Element, ElementType, Inputs, KernelPath, Result};
use rayon::prelude::*;

/// How a kernel computes: what the bound of its gradients depends on.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct BoundOptions<'a> {
    /// The order in which the forward pass walked the keys; by default ascending, in one part. See [`Walk`].
    pub order: Option<Walk<'a>>,
    /// In how many tiles it met them; by default as `order` allows. See [`Tiles`].
    pub tiles: Option<Tiles<'a>>,
    /// In how many tiles of 16 queries the pass over keys meets those of one head that see a key, whose place is the position's `i`; by default
    /// as `order` allows. See `Parts::transpose`.
    pub query_tiles: Option<Tiles<'a>>,
    /// Additions in a row for an element of a tensor's gradient at most, by the tensor's name; by default as many as pairs read it. See
    /// `TensorExplanation::chain`.
    pub chains: &'a [(&'static str, usize)],
    /// How the forward pass kept the weights; by default in f32, as the scalar path does.
    pub weights: WeightFormat,
    /// The kernels of the gradients themselves; by default the scalar ones, which round no weight. See `BackwardPlan::path`.
    pub path: KernelPath,
    /// How the gradients are stored.
    pub storage: ElementType,
}

impl<'a> BoundOptions<'a> {
    /// Sets the order in which the forward pass walked the keys.
    pub fn order(self, order: Walk<'a>) -> Self {
        Self { order: Some(order), ..self }
    }

    /// Sets in how many tiles it met them.
    pub fn tiles(self, tiles: Tiles<'a>) -> Self {
        Self { tiles: Some(tiles), ..self }
    }

    /// Sets in how many tiles the pass over keys meets queries.
    pub fn query_tiles(self, query_tiles: Tiles<'a>) -> Self {
        Self { query_tiles: Some(query_tiles), ..self }
    }

    /// Sets how many additions in a row an element of a tensor's gradient takes.
    pub fn chains(self, chains: &'a [(&'static str, usize)]) -> Self {
        Self { chains, ..self }
    }

    /// Sets how the forward pass kept the weights.
    pub fn weights(self, weights: WeightFormat) -> Self {
        Self { weights, ..self }
    }

    /// Sets the kernels of the gradients themselves.
    pub fn path(self, path: KernelPath) -> Self {
        Self { path, ..self }
    }

    /// Sets how the gradients are stored.
    pub fn storage(self, storage: ElementType) -> Self {
        Self { storage, ..self }
    }
}

/// Gradients in f64, contiguous, with the largest error of a kernel per element. NaN among the values says that a kernel must give
/// NaN, an infinite bound that nothing is promised: see [`Bounded`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BoundedGradients {
    /// The gradient by q, `[B, H, Lq, d]`.
    pub dq: Bounded,
    /// The gradient by k, `[B, Hkv, Lk, d]`.
    pub dk: Bounded,
    /// The gradient by v, `[B, Hkv, Lk, dv]`.
    pub dv: Bounded,
    /// The gradient by each tensor that the caller gives for a term of the score: see [`Gradients::terms`](super::Gradients::terms).
    pub terms: Vec<(&'static str, Bounded)>,
}

impl BoundedGradients {
    /// The gradient by the tensor of this name.
    pub fn term(&self, name: &str) -> Option<&Bounded> {
        self.terms.iter().find(|(own, _)| *own == name).map(|(_, values)| values)
    }
}

/// [`attention_gradient`](super::attention_gradient) with the bound on what a kernel may give for it: from the inputs alone, not
/// from what the device's forward pass left.
///
/// # Errors
/// As [`attention_gradient`](super::attention_gradient); for an order that does not meet each
/// attended key exactly once.
///
/// ```
/// use wgpu_attention::{AttentionShape, Causal, reference};
/// let shape = AttentionShape::new(1, 2, 48, 16);
/// let tensors = reference::random::<f32, f32>(&shape, reference::Kind::Normal, 7)?;
/// let dout = vec![1.0f32; 2 * 48 * 16];
/// let options = reference::gradient::BoundOptions::default();
/// let exact = reference::gradient::bounded(&shape, &tensors.inputs(), &dout, &Causal, options)?;
/// // A kernel's gradients: here the exact ones, rounded.
/// let got = exact.dq.out.iter().map(|&x| x as f32);
/// assert!(exact.dq.compare(got, 0.0).pass);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn bounded<Q: Element, KV: Element, O: Element>(
    attention: impl Into<Attention>,
    inputs: &Inputs<'_, Q, KV>,
    dout: &[O],
    pattern: &dyn Pattern,
    options: BoundOptions<'_>,
) -> Result<BoundedGradients> {
    let attention = attention.into();
    let call = GradientCall::new(&attention, inputs, dout, pattern)?;
    let (exact, bounds) = before_storage(&call, options)?;
    let mut terms = vec![];
    for (name, out) in exact.terms {
        let own = bounds.terms.iter().find(|(own, _)| *own == name);
        let bound = own.map_or_else(|| vec![f64::INFINITY; out.len()], |(_, bound)| bound.clone());
        terms.push((name, with_storage(out, bound, ElementType::F32)));
    }
    Ok(BoundedGradients {
        dq: with_storage(exact.dq, bounds.dq, options.storage),
        dk: with_storage(exact.dk, bounds.dk, options.storage),
        dv: with_storage(exact.dv, bounds.dv, options.storage),
        terms,
    })
}

/// The gradients of a call, and how far the f32 sums of a kernel may be from them: NaN where something is not finite.
pub(in crate::reference) fn before_storage(
    call: &GradientCall<'_>,
    options: BoundOptions<'_>,
) -> Result<(Gradients, Gradients)> {
    let BoundOptions { order, tiles, query_tiles, chains, weights, path, .. } = options;
    let operands = Operands::of(path);
    let of_row = |n| {
        let row = Row::new(call, Position::of_row(call.shape(), n));
        let errors = BoundedRow::new(call, &row, Route { order, tiles, weights }, operands)?;
        Ok((row, errors))
    };
    let queries = match query_tiles {
        Some(tiles) => Queries::InTiles(tiles),
        None if order.is_none() => Queries::InOrder,
        None => Queries::Anyhow,
    };
    let (mut exact, mut bounds) = (Sums::new(call), ErrorSums::new(call, queries, (chains, operands)));
    for rows in blocks(call.shape()) {
        let rows: Vec<_> = rows.into_par_iter().map(of_row).collect::<Result<_>>()?;
        let (rows, errors): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        rayon::join(|| exact.add(&rows), || bounds.add(&rows, errors));
    }

    let exact = exact.gradients();
    let dq = bounds.dq(&exact.dq);
    let (dk, dv) = bounds.dk_and_dv();
    Ok((exact, Gradients { dq, dk, dv, terms: bounds.terms() }))
}

/// Exactly 0 stays so; a bound of NaN says that something of the element's rows is not finite.
pub(in crate::reference) fn with_storage(
    mut out: Vec<f64>,
    mut bound: Vec<f64>,
    storage: ElementType,
) -> Bounded {
    for (out, bound) in out.iter_mut().zip(&mut bound) {
        if bound.is_nan() {
            (*out, *bound) = (f64::NAN, 0.0);
        } else if *bound > 0.0 {
            *bound = written(storage, out.abs(), *bound);
        }
    }
    Bounded { out, bound }
}

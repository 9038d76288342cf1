//! Calls whose gradients are integers: all scores are equal, so that every weight is 1 / n. They tell the exact set of pairs, on
//! both sides; under a constant bias of -2^30 also that m and l are kept apart.

use crate::in_f16::run_in_its_type;
use crate::support::{Case, Cut, Draw, PATTERNS, cut, gpu_with, picked};
use wgpu_attention::reference::Tensors;
use wgpu_attention::{AttentionShape, BiasStrides, Gpu, Parts, Score, Site};

/// Which gradient is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// q = 0.
    Dq,
    /// k = 0.
    Dk,
    /// q = k = 0.
    Dv,
}

/// Numbers 0 or 1.
pub(crate) fn bits(len: usize, seed: u64, stream: u64) -> Vec<f32> {
    let mut draw = Draw::new(seed, stream);
    (0..len).map(|_| draw.below(2) as f32).collect()
}

/// Contiguous tensors. Of `Dv`: do_i = n_i b_i, b in {0, 1}, n_i the keys of query i; dv_j = sum of b_i over the queries that see j.
/// Of the others: v_j = a_j e_0, do_i = n_i^2 e_0, a in {0, 1}; ds_ij = n_i a_j - A_i, A_i the sum of a over the keys of i.
pub(crate) fn count_on(gpu: &Gpu, case: &Case, parts: &Parts, of: Of) -> Result<(), String> {
    let shape = case.attention.shape;
    let (d, dv, seed) = (shape.head_dim, shape.value_dim, case.seed);
    let zero = |len| vec![0.0f32; len];
    let mut tensors: Tensors<f32, f32> = case.tensors();
    tensors.q = if of == Of::Dk { bits(shape.len_q(), seed, 1) } else { zero(shape.len_q()) };
    tensors.k = if of == Of::Dq { bits(shape.len_k(), seed, 2) } else { zero(shape.len_k()) };
    let a = bits(shape.len_k() / d, seed, 3);
    tensors.v = if of == Of::Dv { bits(shape.len_v(), seed, 4) } else { zero(shape.len_v()) };
    if of != Of::Dv {
        tensors.v.chunks_mut(dv).zip(&a).for_each(|(v, a)| v[0] = *a);
    }
    if let Some(bias) = tensors.term_mut("bias") {
        bias.fill(-(2f32.powi(30)));
    }
    let b = bits(shape.len_out(), seed, 5);
    let mut dout = zero(shape.len_out());
    let mut want = vec![0f64; [shape.len_q(), shape.len_k(), shape.len_v()][of as usize]];
    for row in 0..shape.len_lse() {
        let (i, head, batch) =
            (row % shape.q_len, row / shape.q_len % shape.heads, row / shape.q_len / shape.heads);
        let site = Site { batch, head, extent: shape.extent() };
        let first = (batch * shape.kv_heads + shape.kv_head(head)) * shape.kv_len;
        let keys: Vec<usize> = (0..shape.kv_len)
            .filter(|&j| case.pattern.as_dyn().keep(&site, i, j))
            .map(|j| first + j)
            .collect();
        let n = keys.len() as f64;
        // Heads of a group by their weights.
        let sign = if head % 2 == 0 { 1.0 } else { -1.0 };
        let sum: f64 = keys.iter().map(|&j| f64::from(a[j])).sum();
        for c in 0..dv {
            let b = f64::from(b[row * dv + c]);
            dout[row * dv + c] = (sign
                * if of == Of::Dv {
                    n * b
                } else if c == 0 {
                    n * n
                } else {
                    0.0
                }) as f32;
            if of == Of::Dv {
                keys.iter().for_each(|&j| want[j * dv + c] += sign * b);
            }
        }
        for &j in &keys {
            let ds = sign * (n * f64::from(a[j]) - sum);
            for c in 0..d {
                match of {
                    Of::Dq => want[row * d + c] += ds * f64::from(tensors.k[j * d + c]),
                    Of::Dk => want[j * d + c] += ds * f64::from(tensors.q[row * d + c]),
                    Of::Dv => {}
                }
            }
        }
    }
    let got = run_in_its_type(gpu, case, &tensors, &dout, parts)?;
    let (got, unit) = match of {
        Of::Dq => (got.dq, 0.5),
        Of::Dk => (got.dk, 0.5),
        Of::Dv => (got.dv, 1.0),
    };
    for (n, (got, want)) in got.iter().zip(want).enumerate() {
        let got = f64::from(*got) / unit;
        if !got.is_finite() || (got - want).abs() >= 0.25 {
            return Err(format!("{of:?}[{n}] is {got}, not {want}\n{case}"));
        }
    }
    Ok(())
}

pub(crate) fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 8).kv_heads(2).kv_len(120).value_dim(4)
}

pub(crate) fn biased() -> Score {
    Score::new().scale(0.5).bias(BiasStrides::broadcast([1, 1, 1, 1]))
}

#[test]
fn every_pattern() {
    for (name, _) in PATTERNS {
        let case =
            Case::new(shape().score(Score::new().scale(0.5))).pattern(picked(name, &shape().extent(), 2));
        for of in [Of::Dq, Of::Dk, Of::Dv] {
            count_on(&gpu_with(case.options), &case, &case.parts(), of).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn parts_and_huge_biases() {
    for score in [Score::new().scale(0.5), biased()] {
        let case = Case::new(shape().score(score)).pattern(picked("blocks_per_head", &shape().extent(), 3));
        for how in [Cut::Whole, Cut::Gathers] {
            for of in [Of::Dq, Of::Dk, Of::Dv] {
                let checked = count_on(&gpu_with(case.options), &case, &cut(&case, how, 1), of);
                checked.unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

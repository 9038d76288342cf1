//! Sets of keys that are known exactly: every partial sum is an integer that f32 holds, so that a key too many or too few shows.

use super::{Case, shape};
use wgpu_attention::reference::Kind;
use wgpu_attention::{AttentionShape, FeatureMap, Gpu, LinearOptions};
use wgpu_attention_testing::gpu;

/// Whether query i of a batch item sees key j.
fn sees(case: &Case<f32>, batch: usize, i: usize, j: usize) -> bool {
    let shape = &case.attention.shape;
    let hidden = case.key_mask.as_ref().is_some_and(|mask| !mask[batch * shape.kv_len + j]);
    !hidden && (!case.options.causal || j as i64 <= i as i64 + shape.kv_len as i64 - shape.q_len as i64)
}

/// Features are 0 or 1 and values are bits, so that out times the sum of a query's products is an integer: which one, integers say.
fn counted(gpu: &Gpu, case: &Case<f32>) -> Result<(), String> {
    let shape = &case.attention.shape;
    let (d, dv) = (shape.head_dim, shape.value_dim);
    let out = case.run_on(gpu)?;
    for n in 0..shape.len_lse() {
        let (batch, head, i) =
            (n / shape.q_len / shape.heads, n / shape.q_len % shape.heads, n % shape.q_len);
        let line = batch * shape.kv_heads + shape.kv_head(head);
        let q = &case.q[n * d..][..d];
        let mut count = 0;
        let mut sums = vec![0u32; dv];
        for j in (0..shape.kv_len).filter(|&j| sees(case, batch, i, j)) {
            let k = &case.k[(line * shape.kv_len + j) * d..][..d];
            let product = q.iter().zip(k).map(|(q, k)| (q * k) as u32).sum::<u32>();
            count += product;
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum += product * case.v[(line * shape.kv_len + j) * dv + c] as u32;
            }
        }
        for (c, &sum) in sums.iter().enumerate() {
            let got = f64::from(out[n * dv + c]) * f64::from(count.max(1));
            // Also where it is not a number.
            let near = (got - f64::from(sum)).abs() <= f64::from(sum) * 1e-6;
            if !near || (count == 0 && out[n * dv + c] != 0.0) {
                return Err(format!(
                    "batch {batch}, head {head}, query {i}, column {c}: {got} of {count}, not {sum}; {:?}",
                    case.options
                ));
            }
        }
    }
    Ok(())
}

fn bits(case: &mut Case<f32>, ones: impl Fn(usize) -> bool) {
    let d = case.attention.shape.head_dim;
    case.q.iter_mut().chain(&mut case.k).enumerate().for_each(|(n, x)| *x = f32::from(u8::from(ones(n % d))));
    case.v.iter_mut().for_each(|v| *v = f32::from(u8::from(*v > 0.0)));
}

/// phi = 1: out is the mean of the values that a query sees.
pub(super) fn means(gpu: &Gpu) -> Result<(), String> {
    for (causal, masked) in [(true, false), (true, true), (false, true)] {
        let options = LinearOptions::new(FeatureMap::Identity).causal(causal).key_mask(masked);
        let mut case = Case::<f32>::new(shape(), options, Kind::Normal, 3);
        bits(&mut case, |c| c == 0);
        if let Some(mask) = &mut case.key_mask {
            mask[..90].fill(false); // a whole chunk, and all keys of the first queries
        }
        counted(gpu, &case)?;
    }
    Ok(())
}

/// Each key holds one feature, each query another: the mean of the values of those keys alone.
pub(super) fn single_keys(gpu: &Gpu, shape: AttentionShape, causal: bool) -> Result<(), String> {
    let options = LinearOptions::new(FeatureMap::Identity).causal(causal);
    let mut case = Case::<f32>::new(shape, options, Kind::Normal, 9);
    bits(&mut case, |_| false);
    let d = shape.head_dim;
    case.k.chunks_mut(d).enumerate().for_each(|(j, k)| k[j % shape.kv_len % d] = 1.0);
    case.q.chunks_mut(d).enumerate().for_each(|(i, q)| q[i * 7 % d] = 1.0);
    counted(gpu, &case)
}

#[test]
fn means_count_every_key_once() {
    means(gpu()).unwrap();
}

#[test]
fn one_key_per_feature_is_met_alone() {
    for causal in [true, false] {
        // As many features as keys, and fewer.
        single_keys(gpu(), AttentionShape::new(1, 2, 200, 200).value_dim(8), causal).unwrap();
        single_keys(gpu(), shape(), causal).unwrap();
        single_keys(gpu(), AttentionShape::new(2, 2, 131, 8).kv_len(66), causal).unwrap();
    }
}

#[test]
fn lengths_where_chunks_begin_and_end() {
    for (q_len, kv_len) in
        [(1, 1), (64, 64), (65, 64), (64, 65), (128, 127), (1, 192), (192, 1), (10, 0), (129, 129)]
    {
        for causal in [true, false] {
            let shape = AttentionShape::new(1, 1, q_len, 4).kv_len(kv_len);
            let mut case = Case::<f32>::new(
                shape,
                LinearOptions::new(FeatureMap::Identity).causal(causal),
                Kind::Normal,
                3,
            );
            bits(&mut case, |_| true);
            counted(gpu(), &case).unwrap();
        }
    }
}

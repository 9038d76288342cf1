//! Attention against candle's own operations.

mod common;

use candle_core::{DType, Result, Tensor};
use candle_nn::attention::{AttnMask, flash_attn};
use common::{GRADIENTS, assert_close, ours, plain, tensor, tensors, values, variables};
use wgpu_attention_candle::pattern::{BigBird, Causal, Full, Pattern, Window};
use wgpu_attention_candle::wgpu_attention::Score;
use wgpu_attention_candle::{AttentionOptions, attention};

/// Patterns in which every query has a key.
fn patterns() -> [Box<dyn Pattern>; 4] {
    let bigbird = BigBird::new(16, 3, 1, 1, 7).expect("sizes that fit");
    [Box::new(Full), Box::new(Causal), Box::new(Window { before: 9, after: 3 }), Box::new(bigbird)]
}

#[test]
fn output_and_gradients_are_as_candles_own() -> Result<()> {
    for pattern in patterns() {
        let inputs = variables(tensors([2, 2, 80, 16]));
        let [q, k, v] = &inputs;
        let (got, want) = (ours(q, k, v, &*pattern)?, plain(q, k, v, &*pattern)?);
        assert_close(&format!("{pattern:?}"), &got, &want, 2e-5)?;
        // A square, so that the gradient depends on out.
        let (got, want) = (got.sqr()?.sum_all()?.backward()?, want.sqr()?.sum_all()?.backward()?);
        for (name, input) in GRADIENTS.iter().zip(&inputs) {
            let (got, want) = (got.get(input).expect("a gradient"), want.get(input).expect("a gradient"));
            assert_close(&format!("{name} of {pattern:?}"), got, want, 1e-4)?;
        }
    }
    Ok(())
}

#[test]
fn grouped_heads_and_other_lengths() -> Result<()> {
    let inputs = variables([tensor([2, 4, 33, 24], 1), tensor([2, 2, 70, 24], 2), tensor([2, 2, 70, 8], 3)]);
    let [q, k, v] = &inputs;
    let (got, want) = (ours(q, k, v, &Causal)?, plain(q, k, v, &Causal)?);
    assert_close("out", &got, &want, 2e-5)?;
    let (got, want) = (got.sqr()?.sum_all()?.backward()?, want.sqr()?.sum_all()?.backward()?);
    for (name, input) in GRADIENTS.iter().zip(&inputs) {
        assert_close(name, got.get(input).expect("a gradient"), want.get(input).expect("a gradient"), 1e-4)?;
    }
    Ok(())
}

#[test]
fn output_is_as_that_of_candles_flash_attention() -> Result<()> {
    // [B, L, H, d], as it wants them; its out is [B, H, L, d].
    let [q, k, v] = tensors([1, 60, 4, 32]);
    let want = flash_attn::<f32>(&q, &k, &v, 1.0 / 32f32.sqrt(), AttnMask::causal(), None, None)?;
    let heads_first = |x: &Tensor| x.transpose(1, 2);
    let got = ours(&heads_first(&q)?, &heads_first(&k)?, &heads_first(&v)?, &Causal)?;
    assert_close("causal", &got, &want, 2e-5)
}

#[test]
fn axes_may_lie_in_any_order() -> Result<()> {
    // [B, L, H, d]; parts of packed q, k, v; the last axis not contiguous; one item of a batch.
    let swapped = tensors([2, 40, 3, 16]).map(|x| x.transpose(1, 2));
    let packed = tensor([2, 40, 9, 16], 4);
    let parts = [0, 3, 6].map(|head| packed.narrow(2, head, 3)?.transpose(1, 2));
    let turned = tensors([2, 3, 16, 40]).map(|x| x.transpose(2, 3));
    let items = tensors([3, 3, 40, 16]).map(|x| x.narrow(0, 1, 1));
    for (name, [q, k, v]) in [("swapped", swapped), ("parts", parts), ("turned", turned), ("items", items)] {
        let (q, k, v) = (q?, k?, v?);
        assert!(name == "items" || !q.is_contiguous(), "{name}");
        assert_close(name, &ours(&q, &k, &v, &Causal)?, &plain(&q, &k, &v, &Causal)?, 2e-5)?;
    }
    Ok(())
}

#[test]
fn gradients_go_through_views() -> Result<()> {
    let inputs = variables([tensor([2, 40, 2, 16], 1), tensor([1, 40, 2, 16], 2), tensor([2, 40, 6, 16], 3)]);
    let weights = tensor([2, 40, 2, 16], 4);
    let gradients = |attend: &dyn Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>| {
        let [q, k, v] = &inputs;
        // Swapped; one item for the whole batch; a part.
        let (q, k) = (q.transpose(1, 2)?, k.transpose(1, 2)?.broadcast_as((2, 2, 40, 16))?);
        let v = v.narrow(2, 2, 2)?.transpose(1, 2)?;
        // The gradient of out comes swapped, too.
        (attend(&q, &k, &v)?.transpose(1, 2)? * &weights)?.sum_all()?.backward()
    };
    let got = gradients(&|q, k, v| ours(q, k, v, &Causal))?;
    let want = gradients(&|q, k, v| plain(q, &k.contiguous()?, v, &Causal))?;
    for (name, input) in GRADIENTS.iter().zip(&inputs) {
        assert_close(name, got.get(input).expect("a gradient"), want.get(input).expect("a gradient"), 5e-5)?;
    }
    Ok(())
}

#[test]
fn halves() -> Result<()> {
    for (dtype, tolerance) in [(DType::F16, 1e-3), (DType::BF16, 8e-3)] {
        let rounded = tensors([1, 2, 33, 17]).map(|x| x.to_dtype(dtype).expect("rounded"));
        // Rounded as the inputs are, computed in f32.
        let exact = variables(rounded.clone().map(|x| x.to_dtype(DType::F32).expect("f32")));
        let inputs = variables(rounded);
        let ([q, k, v], [q32, k32, v32]) = (&inputs, &exact);
        let (got, want) = (ours(q, k, v, &Causal)?, plain(q32, k32, v32, &Causal)?);
        assert_eq!(got.dtype(), dtype);
        assert_close(&format!("{dtype:?}"), &got, &want, tolerance)?;
        let (got, want) = (got.sum_all()?.backward()?, want.sum_all()?.backward()?);
        for (name, (half, single)) in GRADIENTS.iter().zip(inputs.iter().zip(&exact)) {
            let (got, want) = (got.get(half).expect("a gradient"), want.get(single).expect("a gradient"));
            assert_eq!(got.dtype(), dtype);
            assert_close(&format!("{name}, {dtype:?}"), got, want, 2.0 * tolerance)?;
        }
    }
    Ok(())
}

#[test]
fn options_change_the_score() -> Result<()> {
    let inputs = variables(tensors([1, 2, 40, 16]));
    let [q, k, v] = &inputs;
    // The default factor is 1/4.
    let want = plain(&(q.as_tensor() * 2.0)?, k, v, &Full)?;
    let got = attention(q, k, v, &Full, AttentionOptions::default().scale(0.5))?;
    assert_close("scale", &got, &want, 2e-5)?;
    let (got_gradients, want_gradients) = (got.sum_all()?.backward()?, want.sum_all()?.backward()?);
    let (dq, want_dq) = (got_gradients.get(q).expect("dq"), want_gradients.get(q).expect("dq"));
    assert_close("dq by the scale", dq, want_dq, 5e-5)?;
    let capped = AttentionOptions::default().score(Score::new().scale(0.5).softcap(0.1));
    let capped = values(&attention(q, k, v, &Full, capped)?)?;
    let distance = capped.iter().zip(values(&want)?).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance > 0.1, "a cap changes the output: {distance}");
    Ok(())
}

#[test]
fn rows_without_a_key_are_zero() -> Result<()> {
    // Causal from the end on: the first 4 of 7 queries have no key.
    let (q, k, v) = (tensor([1, 1, 7, 8], 1), tensor([1, 1, 3, 8], 2), tensor([1, 1, 3, 8], 3));
    let out = values(&ours(&q, &k, &v, &Causal)?)?;
    let (empty, others) = out.split_at(4 * 8);
    assert_eq!(empty, [0.0; 4 * 8]);
    // Query 4 has the first key alone.
    assert_eq!(others[..8], values(&v)?[..8]);
    // No query: nothing to compute.
    assert_eq!(ours(&q.narrow(2, 0, 0)?, &k, &v, &Full)?.dims(), [1, 1, 0, 8]);
    Ok(())
}

#[test]
fn threads_share_the_device() -> Result<()> {
    let [q, k, v] = tensors([1, 2, 64, 16]);
    let want = ours(&q, &k, &v, &Causal)?;
    std::thread::scope(|scope| {
        let call = || values(&ours(&q, &k, &v, &Causal)?);
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(call)).collect();
        threads.into_iter().try_for_each(|thread| {
            assert_eq!(thread.join().expect("no panic")?, values(&want)?);
            Ok(())
        })
    })
}

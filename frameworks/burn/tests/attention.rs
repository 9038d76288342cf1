//! Attention against burn's own operations.

mod common;

use burn::tensor::{DType, Tensor};
use common::{assert_close, device, plain, setup, tensor, tensors};
use wgpu_attention_burn::pattern::{BigBird, Causal, Full, Pattern, Window};
use wgpu_attention_burn::wgpu_attention::{Score, wgpu};
use wgpu_attention_burn::{AttentionOptions, attention};

/// Patterns in which every query has a key.
fn patterns() -> [Box<dyn Pattern>; 4] {
    let bigbird = BigBird::new(16, 3, 1, 1, 7).expect("sizes that fit");
    [Box::new(Full), Box::new(Causal), Box::new(Window { before: 9, after: 3 }), Box::new(bigbird)]
}

/// With the default options.
fn ours(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, pattern: &dyn Pattern) -> Tensor<4> {
    attention(q, k, v, pattern, AttentionOptions::default()).expect("a call that fits")
}

#[test]
fn patterns_are_as_burns_own_mask() {
    for pattern in patterns() {
        let [q, k, v] = tensors([2, 2, 96, 32], &device());
        let want = plain(q.clone(), k.clone(), v.clone(), &*pattern);
        assert_close(&format!("{pattern:?}"), ours(q, k, v, &*pattern), want, 2e-5);
    }
}

#[test]
fn gradients_are_as_burns_own() {
    let with_gradients = device().autodiff();
    for pattern in patterns() {
        let inputs = tensors([1, 2, 80, 16], &with_gradients).map(Tensor::require_grad);
        let weights = tensor([1, 2, 80, 16], 4, &with_gradients);
        let gradients = |attend: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
            let [q, k, v] = inputs.clone();
            // A square, so that the gradient depends on out; sizes that change on the way down.
            let loss = (attend(q * 0.5, k, v).powi_scalar(2) * weights.clone()).sum();
            let gradients = loss.backward();
            inputs.each_ref().map(|input| input.grad(&gradients).expect("a gradient"))
        };
        let got = gradients(&|q, k, v| ours(q, k, v, &*pattern));
        let want = gradients(&|q, k, v| plain(q, k, v, &*pattern));
        for ((name, got), want) in ["dq", "dk", "dv"].iter().zip(got).zip(want) {
            assert_close(&format!("{name} of {pattern:?}"), got, want, 5e-5);
        }
    }
}

#[test]
fn gradients_go_to_those_who_ask() {
    let with_gradients = device().autodiff();
    let [q, k, v] = tensors([1, 1, 64, 16], &with_gradients);
    let v = v.require_grad();
    let got = ours(q.clone(), k.clone(), v.clone(), &Causal).sum().backward();
    assert!(q.grad(&got).is_none() && k.grad(&got).is_none());
    let want = plain(q, k, v.clone(), &Causal).sum().backward();
    assert_close("dv", v.grad(&got).expect("dv"), v.grad(&want).expect("dv"), 2e-5);
    // No one asks, and tensors without autodiff count as constants.
    let [q, k, _] = tensors([1, 1, 64, 16], &device());
    let both = ours(q.clone(), k, v.clone(), &Causal).sum().backward();
    assert_close("dv beside constants", v.grad(&both).expect("dv"), v.grad(&want).expect("dv"), 2e-5);
}

#[test]
fn recomputed_inputs_have_gradients_too() {
    let with_gradients = device().autodiff().gradient_checkpointing();
    let inputs = tensors([1, 2, 48, 16], &with_gradients).map(Tensor::require_grad);
    let loss = |attend: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
        let [q, k, v] = inputs.clone().map(|tensor| (tensor * 0.7).tanh());
        let gradients = attend(q, k, v).powi_scalar(2).sum().backward();
        inputs.each_ref().map(|input| input.grad(&gradients).expect("a gradient"))
    };
    let (got, want) = (loss(&|q, k, v| ours(q, k, v, &Causal)), loss(&|q, k, v| plain(q, k, v, &Causal)));
    for ((name, got), want) in ["dq", "dk", "dv"].iter().zip(got).zip(want) {
        assert_close(name, got, want, 5e-5);
    }
}

#[test]
fn axes_may_lie_in_any_order() {
    let device = device();
    // [B, L, H, d]; slices of packed q, k, v; the last axis not contiguous.
    let [q, k, v] = tensors([2, 64, 3, 16], &device).map(|tensor| tensor.swap_dims(1, 2));
    let want = plain(q.clone(), k.clone(), v.clone(), &Causal);
    assert_close("swapped", ours(q, k, v, &Causal), want, 2e-5);

    let packed = tensor([2, 64, 9, 16], 5, &device);
    let part = |n: usize| packed.clone().slice([0..2, 0..64, 3 * n..3 * n + 3, 0..16]).swap_dims(1, 2);
    let want = plain(part(0), part(1), part(2), &Causal);
    assert_close("packed", ours(part(0), part(1), part(2), &Causal), want, 2e-5);

    let [q, k, v] = tensors([2, 3, 16, 64], &device).map(|tensor| tensor.swap_dims(2, 3));
    let want = plain(q.clone(), k.clone(), v.clone(), &Full);
    assert_close("transposed", ours(q, k, v, &Full), want, 2e-5);
}

#[test]
fn gradients_of_swapped_axes_come_back_swapped() {
    let with_gradients = device().autodiff();
    let inputs = tensors([1, 40, 2, 16], &with_gradients).map(Tensor::require_grad);
    let loss = |attend: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
        let [q, k, v] = inputs.clone().map(|tensor| tensor.swap_dims(1, 2));
        // The gradient of out comes swapped, too.
        let out = attend(q, k, v).swap_dims(1, 2).reshape([1, 40, 32]).swap_dims(1, 2);
        let gradients = (out * tensor([1, 32, 40], 6, &with_gradients)).sum().backward();
        inputs.each_ref().map(|input| input.grad(&gradients).expect("a gradient"))
    };
    let (got, want) = (loss(&|q, k, v| ours(q, k, v, &Causal)), loss(&|q, k, v| plain(q, k, v, &Causal)));
    for ((name, got), want) in ["dq", "dk", "dv"].iter().zip(got).zip(want) {
        assert_close(name, got, want, 5e-5);
    }
}

#[test]
fn grouped_heads_and_other_lengths() {
    let with_gradients = device().autodiff();
    let inputs = [([2, 4, 33, 24], 1), ([2, 2, 70, 24], 2), ([2, 2, 70, 8], 3)];
    let inputs = inputs.map(|(dims, seed)| tensor(dims, seed, &with_gradients).require_grad());
    let [q, k, v] = inputs.clone();
    let want = plain(q.clone(), k.clone(), v.clone(), &Causal);
    let got = ours(q, k, v, &Causal);
    assert_close("out", got.clone(), want.clone(), 2e-5);
    let [got, want] = [got, want].map(|out| {
        let gradients = out.powi_scalar(2).sum().backward();
        inputs.each_ref().map(|input| input.grad(&gradients).expect("a gradient"))
    });
    for ((name, got), want) in ["dq", "dk", "dv"].iter().zip(got).zip(want) {
        assert_close(name, got, want, 1e-4);
    }
}

#[test]
fn halves() {
    let rounded = tensors([1, 2, 67, 17], &device()).map(|tensor| tensor.cast(DType::F16));
    let tracked = |tensor: Tensor<4>| Tensor::from_inner(tensor).require_grad();
    // Rounded as the inputs are, computed in f32.
    let exact = rounded.clone().map(|tensor| tracked(tensor.cast(DType::F32)));
    let inputs = rounded.map(tracked);
    let ([q, k, v], [q32, k32, v32]) = (inputs.clone(), exact.clone());
    let (got, want) = (ours(q, k, v, &Causal), plain(q32, k32, v32, &Causal));
    assert_eq!(got.dtype(), DType::F16);
    assert_close("out", got.clone(), want.clone(), 2e-3);
    let (got, want) = (got.sum().backward(), want.sum().backward());
    for (name, (half, single)) in ["dq", "dk", "dv"].iter().zip(inputs.iter().zip(&exact)) {
        let gradient = half.grad(&got).expect("a gradient");
        assert_eq!(gradient.dtype(), DType::F16);
        assert_close(name, gradient, single.grad(&want).expect("a gradient"), 2e-2);
    }
}

#[test]
fn options_change_the_score() {
    let [q, k, v] = tensors([1, 2, 40, 16], &device());
    let want = plain(q.clone() * 0.5 * 4.0, k.clone(), v.clone(), &Full);
    let options = AttentionOptions::default().scale(0.5);
    assert_close(
        "scale",
        attention(q.clone(), k.clone(), v.clone(), &Full, options).unwrap(),
        want.clone(),
        2e-5,
    );
    let capped = AttentionOptions::default().score(Score::new().scale(0.5).softcap(0.1));
    let capped = attention(q, k, v, &Full, capped).unwrap();
    let distance = (capped - want).abs().max().into_scalar::<f32>();
    assert!(distance > 0.1, "a cap changes the output: {distance}");
}

/// Each layer reads what burn has not submitted when it is called, and burn's next operation what it has just written.
#[test]
fn calls_stand_in_the_order_of_burns_own() {
    let device = device();
    let layers = |attend: &dyn Fn(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
        let mut x = tensor([1, 2, 64, 16], 1, &device);
        for layer in 0..6 {
            let weights = tensor([1, 2, 16, 16], 10 + layer, &device) * 0.3;
            let q = (x.clone().matmul(weights.clone()) + 0.1).tanh();
            let k = (x.clone() * 1.5).sin();
            x = x.clone() * 0.5 + attend(q, k, x.matmul(weights).exp().clamp_max(3.0)).cos();
        }
        x
    };
    let got = layers(&|q, k, v| ours(q, k, v, &Causal));
    let want = layers(&|q, k, v| plain(q, k, v, &Causal));
    assert_close("six layers", got, want, 1e-4);
}

#[test]
fn threads_have_streams_of_their_own() {
    let device = device();
    let shared = tensors([1, 2, 64, 16], &device);
    let run = |seed: u64| {
        let (device, [_, k, v]) = (device.clone(), shared.clone());
        move || {
            let mut x = tensor([1, 2, 64, 16], seed, &device);
            for _ in 0..5 {
                x = ours(x.clone() * 0.9, k.clone(), v.clone() + x, &Causal).tanh();
            }
            // Read on another thread, whose stream has to wait for this one's.
            x
        }
    };
    let threads: Vec<_> = (20..24).map(|seed| std::thread::spawn(run(seed))).collect();
    for (seed, thread) in (20..24).zip(threads) {
        let [_, k, v] = shared.clone();
        let mut want = tensor([1, 2, 64, 16], seed, &device);
        for _ in 0..5 {
            want = plain(want.clone() * 0.9, k.clone(), v.clone() + want, &Causal).tanh();
        }
        let got = ours(thread.join().expect("a result") + 0.0, k.clone(), v.clone(), &Causal);
        assert_close("another thread's", got, plain(want, k, v, &Causal), 5e-5);
    }
}

/// A call that read anything back would wait for the calls before it.
#[test]
fn no_one_waits() {
    let device = device();
    let [q, k, v] = tensors([1, 8, 1536, 64], &device);
    let call = || ours(q.clone(), k.clone(), v.clone(), &Full);
    // Compiles; then all is done.
    call().into_data();
    let calls: Vec<_> = (0..4).map(|_| call()).collect();
    device.flush().expect("nothing failed");
    let status = setup().device.poll(wgpu::PollType::Poll).expect("a device");
    // A GPU may be done by now; a software adapter takes a second.
    let slow = setup().adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    assert!(!slow || !status.is_queue_empty(), "the call has waited for the device");
    assert_close("the last", calls[3].clone(), calls[0].clone(), 0.0);
}

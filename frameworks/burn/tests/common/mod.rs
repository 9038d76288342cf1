//! What the tests share: a device, tensors, attention by burn's own operations.

#![allow(dead_code)] // Each test uses its part.

use burn::tensor::activation::softmax;
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use std::sync::LazyLock;
use wgpu_attention_burn::pattern::{Extent, Pattern, Site};
use wgpu_attention_burn::wgpu_attention::Counter;

static MADE: LazyLock<(Device, WgpuSetup)> = LazyLock::new(|| {
    let (device, setup) = Device::wgpu_options().init_with_setup().expect("an adapter");
    wgpu_attention_burn::attach(&device, &setup).expect("kernels");
    (device, setup)
});

/// The device that all tests of a program share.
pub(crate) fn device() -> Device {
    MADE.0.clone()
}

/// What burn made it of.
pub(crate) fn setup() -> &'static WgpuSetup {
    &MADE.1
}

/// Normal values, the same in every run.
pub(crate) fn data<const N: usize>(dims: [usize; N], seed: u64) -> TensorData {
    let draw = Counter::new(seed, 0);
    let values: Vec<f32> =
        (0..dims.iter().product::<usize>() as u64).map(|n| draw.normal(n) as f32).collect();
    TensorData::new(values, dims)
}

/// The same on the device.
pub(crate) fn tensor<const N: usize>(dims: [usize; N], seed: u64, device: &Device) -> Tensor<N> {
    Tensor::from_data(data(dims, seed), device)
}

/// q, k and v of one size.
pub(crate) fn tensors(dims: [usize; 4], device: &Device) -> [Tensor<4>; 3] {
    [1, 2, 3].map(|seed| tensor(dims, seed, device))
}

/// True where a pattern has no pair, `[B, H, Lq, Lk]`.
pub(crate) fn left_out(
    pattern: &dyn Pattern,
    [batch, heads, q_len, kv_len]: [usize; 4],
    device: &Device,
) -> Tensor<4, Bool> {
    let extent = Extent { batch, heads, q_len, kv_len };
    let mut left_out = vec![];
    for (batch, head) in (0..batch).flat_map(|batch| (0..heads).map(move |head| (batch, head))) {
        let site = Site { batch, head, extent };
        left_out.extend((0..q_len).flat_map(|i| (0..kv_len).map(move |j| !pattern.keep(&site, i, j))));
    }
    Tensor::from_data(TensorData::new(left_out, [batch, heads, q_len, kv_len]), device)
}

/// softmax(q k^T / sqrt(d)) v by burn's operations, over a pattern in which every query has a key.
pub(crate) fn plain(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, pattern: &dyn Pattern) -> Tensor<4> {
    let ([batch, heads, q_len, dim], [_, kv_heads, kv_len, _]) = (q.dims(), k.dims());
    let [k, v] = [k, v].map(|tensor| {
        let [.., dim] = tensor.dims();
        let groups = tensor.unsqueeze_dim::<5>(2).repeat_dim(2, heads / kv_heads);
        groups.reshape([batch, heads, kv_len, dim])
    });
    let device = q.device().without_autodiff();
    let mask = left_out(pattern, [batch, heads, q_len, kv_len], &device);
    let scores = q.matmul(k.swap_dims(2, 3)) / (dim as f64).sqrt();
    softmax(scores.mask_fill(mask, -1e30), 3).matmul(v)
}

/// Every element within a distance of the other's, and not all of them 0.
pub(crate) fn assert_close<const N: usize>(what: &str, got: Tensor<N>, want: Tensor<N>, tolerance: f32) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let [got, want] =
        [got, want].map(|tensor| tensor.cast(DType::F32).into_data().try_to_vec::<f32>().expect("f32"));
    assert!(want.iter().any(|x| x.abs() > 10.0 * tolerance), "{what}: nothing to compare");
    for (n, (got, want)) in got.iter().zip(&want).enumerate() {
        // A NaN is not within.
        assert!((got - want).abs() <= tolerance, "{what}: element {n} is {got}, not {want}");
    }
}

/// On the host.
pub(crate) fn values<const N: usize>(tensor: Tensor<N>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}

/// Every element within a distance of an f64 reference's, and not all of them 0.
pub(crate) fn assert_near(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    assert!(want.iter().any(|x| x.abs() > 10.0 * tolerance), "{what}: nothing to compare");
    for (n, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= tolerance, "{what}: element {n} is {got}, not {want}");
    }
}

//! Cases of Linformer and its gradients: products over a transposed A, sums over lines, masked rows; every element within its bound.

use anyhow::Result;
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{self, Rows};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Attention, AttentionShape, Element, ElementType, LinformerBuffers, LinformerGradBuffers, LinformerInputs,
    LinformerOptions, Options, Storage,
};

use crate::bench::Bench;
use crate::cases::training::judged;
use crate::cases::{Case, Set};
use crate::tensor::{Tensor, normal};

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let few = (Set::Tiny, AttentionShape::new(1, 1, 5, 4).kv_len(9), LinformerOptions::new(9, 3));
    let shape = AttentionShape::new(2, 4, 21, 12).kv_heads(2).kv_len(70).value_dim(8);
    let options = LinformerOptions::new(90, 19);
    let mut cases = vec![];
    let calls = [
        ("9 keys", few),
        ("masked", (Set::Small, shape, options.key_mask(true))),
        ("per head", (Set::Full, shape, options.per_head(true))),
        ("one of each", (Set::Full, shape.value_dim(12), options.values(false).value_projection(false))),
    ];
    for (element, (name, (set, shape, options))) in
        [F32, F16, Bf16].into_iter().flat_map(|element| calls.map(|call| (element, call)))
    {
        let set = if element == F32 { set } else { set.max(Set::Small) };
        let attention: Attention = shape.storage(Storage::all(element));
        for kernel in ["Linformer", "Linformer gradients"] {
            let attention = attention.clone();
            let run = Box::new(move |bench: &Bench| of_type(bench, kernel, &attention, &options));
            cases.push(Case { kernel, element, name: name.into(), set, run });
        }
    }
    cases
}

fn of_type(bench: &Bench, kernel: &str, attention: &Attention, options: &LinformerOptions) -> Result<f64> {
    match attention.storage.q {
        F32 => run::<f32>(bench, kernel, attention, options),
        F16 => run::<half::f16>(bench, kernel, attention, options),
        Bf16 => run::<half::bf16>(bench, kernel, attention, options),
    }
}

/// A call's tensors: as the kernel has them, and on the device.
struct Given<E> {
    on_host: Vec<E>,
    on_device: Tensor,
}

impl<E: Element> Given<E> {
    fn new(bench: &Bench, stream: u64, len: usize, size: f64) -> Self {
        let on_host: Vec<E> =
            normal(stream, len, ElementType::F32).iter().map(|x| E::from_f64(size * x)).collect();
        let on_device = Tensor::elements(bench, &on_host);
        Self { on_host, on_device }
    }
}

fn run<E: Element>(
    bench: &Bench,
    kernel: &str,
    attention: &Attention,
    options: &LinformerOptions,
) -> Result<f64> {
    let shape = &attention.shape;
    let given = |stream, len| Given::<E>::new(bench, stream, len, 1.0);
    let (q, k) = (given(1, attention.len_q()), given(2, attention.len_k()));
    let v = options.values.then(|| given(3, attention.len_v()));
    let size = (shape.kv_len as f64).sqrt().recip();
    let matrix = |stream| Given::<f32>::new(bench, stream, options.len_projection(shape), size);
    let (e, f) = (matrix(4), options.value_projection.then(|| matrix(5)));
    let mask: Vec<bool> = (0..shape.batch * shape.kv_len).map(|n| n % 4 != 1).collect();
    let words: Vec<u32> = mask.iter().map(|&counts| counts.into()).collect();
    let mask_ = options.key_mask.then(|| Tensor::words(bench, &words));
    let inputs = LinformerInputs::new(&q.on_host, &k.on_host, &e.on_host)
        .v(v.as_ref().map(|v| &v.on_host[..]))
        .f(f.as_ref().map(|f| &f.on_host[..]))
        .key_mask(options.key_mask.then_some(&mask[..]));
    // What runs everywhere.
    let gpu = bench.with(Options::default().tile_kind(TileKind::Staged))?;
    let plan = gpu.kernels().linformer(attention, *options)?;
    let [q_, k_, e_] = [&q.on_device, &k.on_device, &e.on_device].map(Tensor::binding);
    let (v_, f_) = (v.as_ref().map(|v| v.on_device.binding()), f.as_ref().map(|f| f.on_device.binding()));
    let key_mask = mask_.as_ref().map(Tensor::binding);
    let out = Tensor::output(bench, attention.len_out(), E::TYPE);
    if kernel == "Linformer" {
        let buffers = LinformerBuffers::new(q_, k_, e_, out.binding()).v(v_).f(f_).key_mask(key_mask);
        let call = plan.bind(buffers)?;
        let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
        let got: Vec<E> = bytemuck::pod_collect_to_vec(out.take(&bytes[0])?);
        let report = reference::verify_linformer(attention, options, &inputs, &got, Rows::All, None)?;
        anyhow::ensure!(report.pass && report.unspecified == 0, "{report}");
        return Ok(report.ratio());
    }
    let dout = given(6, attention.len_out());
    let output = |len, element| Tensor::output(bench, len, element);
    let (dq, dk) = (output(attention.len_q(), E::TYPE), output(attention.len_k(), E::TYPE));
    let dv = options.values.then(|| output(attention.len_v(), E::TYPE));
    let de = output(options.len_projection(shape), F32);
    let df = options.value_projection.then(|| output(options.len_projection(shape), F32));
    let buffers = LinformerGradBuffers::new(q_, k_, e_, dout.on_device.binding())
        .v(v_)
        .f(f_)
        .key_mask(key_mask)
        .dq(dq.binding())
        .dk(dk.binding())
        .dv(dv.as_ref().map(Tensor::binding))
        .de(de.binding())
        .df(df.as_ref().map(Tensor::binding));
    let call = plan.backward()?.bind(buffers)?;
    let exact = reference::linformer_gradient(attention, options, &inputs, &dout.on_host, E::TYPE)?;
    let mut outputs: Vec<(&Tensor, &Bounded)> = vec![(&dq, &exact.dq), (&dk, &exact.dk), (&de, &exact.de)];
    outputs.extend(dv.as_ref().zip(exact.dv.as_ref()));
    outputs.extend(df.as_ref().zip(exact.df.as_ref()));
    judged(bench, &call, &outputs)
}

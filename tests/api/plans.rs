//! Plans are kept, and what they hold is not made again: seen by the shader texts that are written.

use super::{assert_right, device, gpu, inputs, read, storage, tensors};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    AttentionBuffers, AttentionPlan, AttentionShape, BigBird, Causal, Error, Full, Gpu, Kernels, Options,
    Outputs, Pattern, Predicate, Score, Strided, Window,
};

/// A device with these options, and how many shader texts were written for it.
fn counting(options: Options) -> (Gpu, Arc<AtomicUsize>) {
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let edit = move |text: &str| {
        count.fetch_add(1, Ordering::Relaxed);
        text.to_owned()
    };
    let kernels = Kernels::with_edited_shaders(gpu().device(), options, edit).unwrap();
    (gpu().with_kernels(kernels), written)
}

#[test]
fn the_same_call_is_planned_once() {
    let (gpu, written) = counting(Options::default());
    let shape = AttentionShape::new(1, 2, 90, 16);
    let capped = shape.score(Score::new().softcap(5.0));
    let data = tensors(shape);
    // How many texts a run writes.
    let run = |attention: &wgpu_attention::Attention, pattern: &dyn Pattern, outputs| {
        let before = written.load(Ordering::Relaxed);
        let got = gpu.run::<f32, f32, f32>(attention, &inputs(&data), pattern, outputs).unwrap();
        (written.load(Ordering::Relaxed) - before, got)
    };
    let (plain, with_lse) = (shape.into(), Outputs::default().lse());
    let (first, right) = run(&plain, &Causal, with_lse);
    assert!(first > 0);
    assert_eq!(run(&plain, &Causal, with_lse), (0, right.clone()));
    assert_eq!(run(&plain, &Causal, Outputs::default()).0, 0, "out alone");
    assert!(run(&plain, &Window { before: 9, after: 0 }, with_lse).0 > 0, "another pattern");
    assert!(run(&plain, &Window { before: 10, after: 0 }, with_lse).0 > 0, "other parameters");
    assert!(run(&capped, &Causal, with_lse).0 > 0, "another score");
    assert_eq!(run(&plain, &Causal, with_lse), (0, right), "the first is still there");

    // What has no value to compare is the same as long as it is the same closure.
    let step = |step| Predicate::new(move |_, i, j| (i + j) % step == 0);
    let (three, five) = (step(3), step(5));
    assert!(run(&plain, &three, with_lse).0 > 0);
    assert_eq!(run(&plain, &three.clone(), with_lse).0, 0);
    assert!(run(&plain, &five, with_lse).0 > 0);
}

/// A call of this plan on buffers of its own, which are read back.
struct Bound {
    call: wgpu_attention::Call,
    data: [Vec<f32>; 3],
    out: wgpu::Buffer,
}

/// Binds tensors that depend on `n`, in scratch of the call's own or in this one.
fn bound(plan: &AttentionPlan, n: usize, scratch: Option<&wgpu_attention::Scratch>) -> Result<Bound, Error> {
    let device = gpu().device();
    let attention = plan.attention();
    let mut data = tensors(attention);
    data.iter_mut().flatten().for_each(|x| *x += n as f32);
    let [q, k, v] = [0, 1, 2].map(|n| storage(device, &data[n]));
    let out = storage(device, &vec![f32::NAN; attention.len_out()]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let buffers = AttentionBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out));
    let call = match scratch {
        Some(scratch) => plan.bind_with(buffers, scratch)?,
        None => plan.bind(buffers)?,
    };
    Ok(Bound { call, data, out })
}

#[test]
fn binding_writes_no_shader_text() {
    for (options, pattern) in [
        (Options::default(), Box::new(Causal) as Box<dyn Pattern>),
        (Options::default().splits(3), Box::new(Causal)),
        (Options::default(), Box::new(Strided::new(8).unwrap())),
    ] {
        let (gpu, written) = counting(options);
        let shape = AttentionShape::new(1, 2, 90, 16);
        let plan = gpu.kernels().attention(shape, &*pattern).unwrap();
        let planned = written.load(Ordering::Relaxed);
        for n in 0..3 {
            bound(&plan, n, None).unwrap();
        }
        assert_eq!(written.load(Ordering::Relaxed), planned, "{pattern:?}");
        // lse has shaders of its own, once.
        plan.prepare_lse().unwrap();
        let prepared = written.load(Ordering::Relaxed);
        assert!(prepared > planned, "{pattern:?}");
        let [q, k, v, out] = [0; 4].map(|_| storage(gpu.device(), &vec![0.0; shape.len_q()]));
        let lse = storage(gpu.device(), &vec![0.0; shape.len_lse()]);
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers = AttentionBuffers::new(whole(&q), whole(&k), whole(&v), whole(&out)).lse(whole(&lse));
        plan.bind(buffers).unwrap();
        assert_eq!(written.load(Ordering::Relaxed), prepared, "{pattern:?}");
    }
}

/// Two calls of one plan, and one of another, recorded one after the other over the same scratch.
#[test]
fn calls_share_scratch() {
    let kernels = Kernels::new(gpu().device(), Options::default().splits(3)).unwrap();
    let plan = kernels.attention(AttentionShape::new(1, 2, 90, 16), &Causal).unwrap();
    let smaller = kernels.attention(AttentionShape::new(1, 2, 40, 16), &Causal).unwrap();
    let scratch = plan.scratch().unwrap();
    let calls =
        [(&plan, 0), (&smaller, 1), (&plan, 2)].map(|(plan, n)| bound(plan, n, Some(&scratch)).unwrap());
    let (device, queue) = (gpu().device(), gpu().queue());
    let mut encoder = device.create_command_encoder(&Default::default());
    calls.iter().for_each(|bound| bound.call.encode(&mut encoder));
    queue.submit([encoder.finish()]);
    for (plan, Bound { data, out, .. }) in [&plan, &smaller, &plan].into_iter().zip(&calls) {
        assert_right(plan.attention(), data, &read(device, queue, out));
    }

    let scratch = smaller.scratch().unwrap();
    let Err(error) = bound(&plan, 0, Some(&scratch)) else { panic!("scratch that is too small was taken") };
    assert!(matches!(&error, Error::Argument { name, .. } if name == "scratch"), "{error}");
}

#[test]
fn a_plan_runs_on_slices_of_its_types() {
    let shape = AttentionShape::new(1, 2, 90, 16);
    let plan = gpu().kernels().attention(shape, &Causal).unwrap();
    let data = tensors(shape);
    let run = |outputs| gpu().run_plan::<f32, f32, f32>(&plan, &inputs(&data), outputs).unwrap();
    let got = run(Outputs::default());
    assert_right(shape, &data, &got.out);
    assert!(got.lse.is_none());
    assert!(run(Outputs::default().lse()).lse.is_some_and(|lse| lse.len() == shape.len_lse()));
    let error = gpu().run_plan::<f32, f32, half::f16>(&plan, &inputs(&data), Outputs::default()).unwrap_err();
    assert!(matches!(&error, Error::Argument { name, .. } if name == "inputs"), "{error}");
}

/// Kept plans belong to the kernels that made them.
#[test]
fn other_kernels_plan_anew() {
    let shape = AttentionShape::new(1, 1, 70, 16);
    let data = tensors(shape);
    let (first, _) = counting(Options::default());
    let run =
        |gpu: &Gpu| gpu.run::<f32, f32, f32>(shape, &inputs(&data), &Causal, Outputs::default()).unwrap();
    run(&first);
    let (second, written) = counting(Options::default());
    let other = first.with_kernels(second.kernels().clone());
    run(&other);
    assert!(written.load(Ordering::Relaxed) > 0);
    // Of another device, too.
    let (device, queue) = device(wgpu::Limits::default());
    let elsewhere = Gpu::with_device(gpu().info().clone(), device, queue, Options::default()).unwrap();
    assert_right(shape, &data, &run(&elsewhere).out);
}

/// Long calls are cut, but never so that a large GPU waits: by the formula of the estimates, for the kinds of devices.
#[test]
fn a_table_of_dispatches() {
    use wgpu_attention::wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu};
    let kernels = gpu().kernels().with_options(Options::default().tile_kind(TileKind::Staged)).unwrap();
    let bigbird = BigBird { block: 64, window: 3, global: 1, random: 2, seed: 1 };
    let window = Window { before: 512, after: 0 };
    let shape = AttentionShape::new;
    // Workgroups, and dispatches by kind, as in docs/SCALE.md.
    let calls: [(AttentionShape, &dyn Pattern, [usize; 4]); 9] = [
        (shape(1, 12, 512, 64), &Full, [192, 1, 1, 1]),
        (shape(1, 16, 8192, 64), &Causal, [2048, 1, 1, 14]),
        (shape(1, 1, 65_536, 64), &Full, [1024, 1, 6, 94]),
        (shape(1, 12, 65_536, 64), &Full, [12_288, 6, 67, 1118]),
        (shape(1, 1, 131_072, 128), &Full, [4096, 2, 45, 820]),
        (shape(1, 8, 131_072, 128), &Causal, [32_768, 16, 349, 6554]),
        (shape(1, 8, 131_072, 128), &window, [32_768, 1, 2, 26]),
        (shape(1, 8, 131_072, 64), &bigbird, [16_384, 1, 1, 11]),
        (shape(8, 32, 1, 128).kv_heads(8).kv_len(8192), &Causal, [512, 1, 1, 1]),
    ];
    for (shape, pattern, want) in calls {
        let plan = kernels.attention(shape, pattern).unwrap();
        let said = plan.explain();
        let merges = usize::from(said.splits > 1 || said.parts > 1);
        let cut = |kind| said.dispatches_on(kind) - merges;
        // A dispatch of a discrete GPU has 2,048 workgroups, or all of them.
        let most = (said.workgroups as usize).div_ceil(2048).max(said.parts);
        let got = [said.workgroups as usize, cut(DiscreteGpu), cut(IntegratedGpu), cut(Cpu)];
        assert_eq!(got, want, "{shape:?}");
        assert!(cut(DiscreteGpu) <= most, "{shape:?}: {} dispatches", cut(DiscreteGpu));
        // Nor is one longer than the time that all may take, by the estimate, but for those 2,048.
        let seconds = |kind, rate: f64| said.flops / cut(kind) as f64 / rate;
        let limit = Options::DISPATCH_TIME.as_secs_f64();
        assert!(seconds(IntegratedGpu, 5e11) <= limit, "{} s", seconds(IntegratedGpu, 5e11));
        assert!(seconds(Cpu, 3e10) <= limit.max(said.flops / said.workgroups as f64 / 3e10));
        assert!(seconds(DiscreteGpu, 5e12) <= limit.max(2048.0 * said.flops / said.workgroups as f64 / 5e12));
        assert!(cut(DiscreteGpu) <= cut(IntegratedGpu) && cut(IntegratedGpu) <= cut(Cpu));
        let here = gpu().device().adapter_info().device_type;
        assert_eq!(said.dispatches, said.dispatches_on(here), "{shape:?}");
    }
}

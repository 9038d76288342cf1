//! As a wgpu user meets them: one encoder, outputs among poison, out and gradients in 16 bits, devices with default limits, bad input.

use super::super::{Case, gpu};
use super::within;
use half::{bf16, f16};
use wgpu::util::DeviceExt;
use wgpu_attention::reference::{self, Kind};
use wgpu_attention::{
    Attention, AttentionShape, Custom, Element, ElementType, Error, Gpu, Gradients, Kernels, Layout,
    LshBackwardPlan, LshBuffers, LshGradBuffers, LshOptions, Options, Score, Sinks, Storage, Strides,
    Temperature,
};

const POISON: u8 = 0xa5;
/// Bytes before and behind a tensor that is written.
const GUARD: usize = 256;

fn whole(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

fn bytes_on(device: &wgpu::Device, contents: &[u8]) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let mut contents = contents.to_vec();
    contents.resize(contents.len().next_multiple_of(4).max(4), 0);
    device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents: &contents, usage })
}

/// A tensor that is written, all poison.
struct Written {
    buffer: wgpu::Buffer,
    bytes: usize,
}

impl Written {
    fn new<G: Element>(device: &wgpu::Device, len: usize) -> Self {
        let bytes = len * size_of::<G>();
        let buffer = bytes_on(device, &vec![POISON; bytes.next_multiple_of(4) + 2 * GUARD]);
        Self { buffer, bytes }
    }

    fn binding(&self) -> wgpu::BufferBinding<'_> {
        let size = wgpu::BufferSize::new(self.bytes.next_multiple_of(4) as u64);
        wgpu::BufferBinding { buffer: &self.buffer, offset: GUARD as u64, size }
    }

    /// The elements; nothing else may be written.
    fn take<G: Element>(&self, device: &wgpu::Device, queue: &wgpu::Queue) -> Vec<G> {
        let words = wgpu_attention_testing::read(device, queue, &self.buffer);
        let all: &[u8] = bytemuck::cast_slice(&words);
        let (before, rest) = all.split_at(GUARD);
        let (own, behind) = rest.split_at(self.bytes);
        assert!(before.iter().chain(behind).all(|&byte| byte == POISON), "written outside of a tensor");
        bytemuck::pod_collect_to_vec(own)
    }
}

/// The gradients of a case in a user's own encoder, with the forward call before, recorded twice; those that are wanted.
fn run<E: Element, O: Element, G: Element>(
    kernels: &Kernels,
    queue: &wgpu::Queue,
    case: &Case<E>,
    (attention, gradients): (&Attention, Gradients),
    (dout, wanted): (&[O], [bool; 2]),
    lens: [usize; 2],
) -> ([Vec<G>; 2], Vec<u32>) {
    let device = kernels.device();
    let plan = kernels.lsh(attention, case.options.clone()).unwrap_or_else(|e| panic!("{e}"));
    let backward: LshBackwardPlan = plan.backward_with(gradients).unwrap_or_else(|e| panic!("{e}"));
    assert!(backward.explain().scratch_bytes > 0 && backward.explain().flops > plan.explain().flops);
    let slice = |contents: &[u8]| bytes_on(device, contents);
    let (qk, v) = (slice(bytemuck::cast_slice(&case.qk)), slice(bytemuck::cast_slice(&case.v)));
    let mask: Vec<u32> = case.key_mask.iter().flatten().map(|&seen| seen.into()).collect();
    let mask = case.options.key_mask.then(|| slice(bytemuck::cast_slice(&mask)));
    let tensors: Vec<_> =
        case.tensors.iter().map(|(name, values)| (*name, slice(bytemuck::cast_slice(values)))).collect();
    let out = slice(&vec![0; attention.len_out() * size_of::<O>()]);
    let state = slice(&vec![0; 8 * attention.shape.len_lse()]);
    let buckets = slice(&vec![0; 4 * case.options.len_buckets(&attention.shape)]);
    let dout = slice(bytemuck::cast_slice(dout));
    let [dqk, dv] = lens.map(|len| Written::new::<G>(device, len));

    let mut forward = LshBuffers::new(whole(&qk), whole(&v), whole(&out));
    forward = forward.state(whole(&state)).buckets(whole(&buckets));
    let mut buffers = LshGradBuffers::new(whole(&qk), whole(&v), whole(&out), whole(&state), whole(&dout));
    if let Some(mask) = &mask {
        (forward, buffers) = (forward.key_mask(whole(mask)), buffers.key_mask(whole(mask)));
    }
    for (name, tensor) in &tensors {
        (forward, buffers) = (forward.tensor(name, whole(tensor)), buffers.tensor(name, whole(tensor)));
    }
    if wanted[0] {
        buffers = buffers.dqk(dqk.binding());
    }
    if wanted[1] {
        buffers = buffers.dv(dv.binding());
    }
    let forward = plan.bind(forward).unwrap_or_else(|e| panic!("{e}"));
    let backward = backward.bind(buffers).unwrap_or_else(|e| panic!("{e}"));
    let mut encoder = device.create_command_encoder(&Default::default());
    forward.encode(&mut encoder);
    backward.encode(&mut encoder);
    backward.encode(&mut encoder);
    queue.submit([encoder.finish()]);
    let buckets = wgpu_attention_testing::read(device, queue, &buckets);
    let buckets = buckets.iter().map(|word| word.to_bits()).collect();
    ([dqk.take(device, queue), dv.take(device, queue)], buckets)
}

/// out, its gradient and the gradients in the type of the inputs, or in f32; several rounds and one.
#[test]
fn out_and_gradients_in_other_storage() {
    fn check<E: Element, O: Element, G: Element>(rounds: usize, d: usize) {
        let shape = AttentionShape::new(2, 2, 45, d).value_dim(7);
        let options = LshOptions::new(rounds, 8, 16).key_mask(true);
        let case = Case::<E>::new(shape, options, Kind::Normal, 4);
        let attention = case.attention.clone().storage(Storage::all(E::TYPE).out(O::TYPE));
        let dout: Vec<O> = case.dout().iter().map(|&x| O::from_f64(x.into())).collect();
        let gradients = Gradients::of(&attention).storage(G::TYPE);
        let lens = [shape.len_q(), shape.len_v()];
        let ([dqk, dv], buckets) = run::<E, O, G>(
            gpu().kernels(),
            gpu().queue(),
            &case,
            (&attention, gradients),
            (&dout, [true; 2]),
            lens,
        );
        let (inputs, storage) = (case.inputs(), G::TYPE);
        let exact =
            reference::bounded_lsh_gradient(&attention, &case.options, &inputs, &dout, &buckets, storage);
        let worst = within(&exact.expect("a valid call"), &dqk, &dv);
        println!("{rounds} rounds: {:.3?}", worst.unwrap_or_else(|e| panic!("{rounds} rounds, d {d}: {e}")));
    }
    for (rounds, d) in [(1, 16), (3, 7)] {
        check::<f16, f16, f16>(rounds, d);
        check::<bf16, f32, bf16>(rounds, d);
        check::<f16, f16, f32>(rounds, d);
        check::<f32, bf16, f32>(rounds, d);
    }
}

/// One gradient alone, and both on a device with default limits, where two tensors of terms leave no pass for both.
#[test]
fn gradients_alone_and_with_tensors_of_terms_on_a_device_with_default_limits() {
    let adapter = pollster::block_on(Gpu::adapters()).expect("an adapter").swap_remove(0);
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    assert_eq!(device.limits().max_storage_buffers_per_shader_stage, 8);
    let kernels = Kernels::new(&device, Options::default()).unwrap();
    let shape = AttentionShape::new(1, 2, 70, 16);
    for score in [Score::new(), Score::new().softcap(2.0).alibi().with(Temperature)] {
        let options = LshOptions::new(2, 8, 16).count_once(true);
        let case = Case::<f32>::new(shape.score(score), options, Kind::Normal, 5);
        let (dout, lens) = (case.dout(), [shape.len_q(), shape.len_v()]);
        let call = (&case.attention, Gradients::of(&case.attention));
        let on = |wanted| run::<f32, f32, f32>(&kernels, &queue, &case, call, (&dout, wanted), lens);
        let ([dqk, dv], buckets) = on([true; 2]);
        within(&case.exact_gradients::<f32>(&dout, &buckets), &dqk, &dv).unwrap_or_else(|e| panic!("{e}"));
        let poison: Vec<f32> = vec![f32::from_le_bytes([POISON; 4]); dqk.len()];
        let (alone, _) = on([true, false]);
        assert!(alone == [dqk.clone(), poison.clone()], "dqk alone");
        let (alone, _) = on([false, true]);
        assert!(alone == [poison, dv], "dv alone");
    }
}

/// Where tensors and their gradients lie, each in its own way.
#[test]
fn layouts() {
    let shape = AttentionShape::new(2, 2, 40, 16);
    let reversed = Layout::Strided(Strides::new(-2 * 40 * 16, -40 * 16, -16).offset((2 * 2 * 40 - 1) * 16));
    for (tensors, written) in
        [(Layout::Bhld, reversed), (Layout::Blhd, Layout::Bhld), (reversed, Layout::Blhd)]
    {
        let attention = shape.layout(tensors);
        let case = Case::<f32>::new(attention.clone(), LshOptions::new(2, 8, 16), Kind::Normal, 2);
        let gradients = Gradients::of(&attention).dq_layout(written).dv_layout(written);
        let dout = case.dout();
        let lens = [shape.len_q(), shape.len_v()];
        let ([dqk, dv], buckets) = run::<f32, f32, f32>(
            gpu().kernels(),
            gpu().queue(),
            &case,
            (&attention, gradients),
            (&dout, [true; 2]),
            lens,
        );
        let at = |all: &[f32]| -> Vec<f32> {
            let strides = match written {
                Layout::Bhld => Strides::new(2 * 40 * 16, 40 * 16, 16),
                Layout::Blhd => Strides::new(2 * 40 * 16, 16, 2 * 16),
                Layout::Strided(strides) => strides,
                _ => unreachable!("one of those above"),
            };
            let rows = (0..2 * 2 * 40).flat_map(|row| {
                let first = strides.at(row / 80, row / 40 % 2, row % 40);
                all[first..first + 16].to_vec()
            });
            rows.collect()
        };
        let exact = case.exact_gradients::<f32>(&dout, &buckets);
        within(&exact, &at(&dqk), &at(&dv)).unwrap_or_else(|e| panic!("{tensors:?}: {e}"));
    }
}

#[test]
fn the_state_is_that_of_all_rounds() {
    for (rounds, score) in [(1, Score::new()), (3, Score::new()), (3, Score::new().softcap(2.0).with(Sinks))]
    {
        let base_e = !score.is_plain();
        let shape = AttentionShape::new(1, 2, 50, 16).score(score);
        let case = Case::<f32>::new(shape, LshOptions::new(rounds, 8, 16), Kind::Normal, 5);
        let plan = gpu().kernels().lsh(&case.attention, case.options.clone()).unwrap();
        let slice = |values: &[f32]| wgpu_attention_testing::storage(gpu().device(), values);
        let (qk, v, out) = (slice(&case.qk), slice(&case.v), slice(&vec![0.0; case.attention.len_out()]));
        let (state, lse) = (slice(&[0.0; 200]), slice(&[0.0; 100]));
        let tensors: Vec<_> = case.tensors.iter().map(|(name, values)| (*name, slice(values))).collect();
        let mut buffers = LshBuffers::new(whole(&qk), whole(&v), whole(&out));
        for (name, tensor) in &tensors {
            buffers = buffers.tensor(name, whole(tensor));
        }
        let call = plan.bind(buffers.state(whole(&state)).lse(whole(&lse))).unwrap();
        let mut encoder = gpu().device().create_command_encoder(&Default::default());
        call.encode(&mut encoder);
        gpu().queue().submit([encoder.finish()]);
        let read = |buffer| wgpu_attention_testing::read(gpu().device(), gpu().queue(), buffer);
        let (state, lse, plain) = (read(&state), read(&lse), case.run());
        assert!(read(&out) == plain.out, "out does not depend on what else is asked for");
        for (n, lse) in lse.iter().enumerate() {
            let (m, l) = (f64::from(state[2 * n]), f64::from(state[2 * n + 1]));
            let want = m * if base_e { 1.0 } else { std::f64::consts::LN_2 } + l.ln();
            assert!((want - f64::from(*lse)).abs() < 1e-5, "row {n}: {want}, not {lse}");
            assert!((plain.lse[n] - lse).abs() < 1e-5, "row {n}");
        }
    }
}

#[test]
fn bad_input_is_refused_by_name() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let options = LshOptions::new(2, 8, 16);
    let plan = gpu().kernels().lsh(shape, options.clone()).unwrap();
    let backward = plan.backward().unwrap();
    assert_eq!(backward.gradients().dq, ElementType::F32);
    assert_eq!(backward.attention().shape, shape);
    let device = gpu().device();
    let [qk, v, out, dout, dqk, dv] =
        [0; 6].map(|_| wgpu_attention_testing::storage(device, &vec![0.0; shape.len_q()]));
    let state = wgpu_attention_testing::storage(device, &vec![0.0; 2 * shape.len_lse()]);
    let small = wgpu_attention_testing::storage(device, &[0.0; 16]);
    let base = || LshGradBuffers::new(whole(&qk), whole(&v), whole(&out), whole(&state), whole(&dout));
    let good = || base().dqk(whole(&dqk)).dv(whole(&dv));
    backward.bind(good()).unwrap();
    let cases = [
        ("gradients", base()),
        ("dqk", base().dqk(whole(&small))),
        ("dv", base().dv(whole(&small))),
        ("dqk", base().dqk(whole(&qk))),
        ("dv", base().dqk(whole(&dqk)).dv(whole(&dqk))),
        ("projections", good().projections(whole(&small))),
        ("key_mask", good().key_mask(whole(&small))),
        ("sinks", good().tensor("sinks", whole(&small))),
        (
            "state",
            LshGradBuffers::new(whole(&qk), whole(&v), whole(&out), whole(&small), whole(&dout))
                .dv(whole(&dv)),
        ),
        (
            "out",
            LshGradBuffers::new(whole(&qk), whole(&v), whole(&small), whole(&state), whole(&dout))
                .dv(whole(&dv)),
        ),
        (
            "dout",
            LshGradBuffers::new(whole(&qk), whole(&v), whole(&out), whole(&state), whole(&small))
                .dv(whole(&dv)),
        ),
    ];
    for (name, buffers) in cases {
        let error = backward.bind(buffers).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{name}: {error}");
    }
    let overlap = Gradients::of(plan.attention()).dq_layout(Layout::Strided(Strides::new(0, 0, 16)));
    let text = plan.backward_with(overlap).expect_err("refused").to_string();
    assert!(text.starts_with("dq_layout: "), "{text}");
}

#[test]
fn bad_plans_and_slices_are_refused_by_name() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let options = LshOptions::new(2, 8, 16);
    let text = "fn mine_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return s * s; }";
    let mine = shape.score(Score::new().with(Custom::new("mine", text, |s, _| s * s)));
    let plan = gpu().kernels().lsh(&mine, options.clone()).unwrap();
    let text = plan.backward().expect_err("refused").to_string();
    assert!(text.contains("Custom::slope") && text.contains("mine"), "{text}");

    let case = Case::<f32>::new(shape, options.clone(), Kind::Normal, 5);
    let short = gpu().lsh_backward::<_, _, f32>(shape, &options, &case.inputs(), &[0.0f32; 5]);
    let text = short.expect_err("refused").to_string();
    assert!(text.starts_with("dout: "), "{text}");
    let of_reference = reference::lsh_gradient(shape, &options, &case.inputs(), &[0.0f32; 5], &[0; 256]);
    assert!(of_reference.expect_err("refused").to_string().starts_with("dout: "));
}

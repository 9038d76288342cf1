//! As a wgpu user meets it, and bad input one by one.

use super::{Call, shape};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Error, Gpu, Kernels, Options, RecurrentBuffers, RecurrentCell, RecurrentInputs, RecurrentShape,
    RecurrentWeightBuffers, RecurrentWeights, Stage,
};
use wgpu_attention_testing::{POISON, gpu, read, storage};

/// Words of poison before and behind a tensor.
const GUARD: usize = 64;

/// An output between guards.
struct Guarded {
    buffer: wgpu::Buffer,
    len: usize,
}

impl Guarded {
    fn new(device: &wgpu::Device, len: usize) -> Self {
        Self { buffer: storage(device, &vec![f32::from_bits(POISON); len + 2 * GUARD]), len }
    }

    fn binding(&self) -> wgpu::BufferBinding<'_> {
        let size = wgpu::BufferSize::new(4 * self.len as u64);
        wgpu::BufferBinding { buffer: &self.buffer, offset: 4 * GUARD as u64, size }
    }

    /// The tensor, once all the poison around it is found untouched.
    fn take(&self, device: &wgpu::Device, queue: &wgpu::Queue) -> Vec<f32> {
        let all = read(device, queue, &self.buffer);
        let (before, rest) = all.split_at(GUARD);
        let (tensor, behind) = rest.split_at(self.len);
        assert!(before.iter().chain(behind).all(|x| x.to_bits() == POISON), "written beside the tensor");
        tensor.to_vec()
    }
}

/// A call's buffers.
struct Buffers {
    x: wgpu::Buffer,
    states: [wgpu::Buffer; 2],
    parts: Vec<[wgpu::Buffer; 4]>,
    out: Guarded,
    h_n: Guarded,
    c_n: Guarded,
}

impl Buffers {
    fn new(device: &wgpu::Device, call: &Call) -> Self {
        let of = |data: &Vec<f32>| storage(device, data);
        let part = |part: &super::Part<f32>| {
            [&part.weight_ih, &part.weight_hh, &part.bias_ih, &part.bias_hh].map(of)
        };
        Self {
            x: of(&call.x),
            states: [&call.h0, &call.c0].map(of),
            parts: call.parts.iter().map(part).collect(),
            out: Guarded::new(device, call.shape.len_out()),
            h_n: Guarded::new(device, call.shape.len_state()),
            c_n: Guarded::new(device, call.shape.len_state()),
        }
    }

    /// All that an LSTM with biases and given states has.
    fn all(&self) -> RecurrentBuffers<'_> {
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        RecurrentBuffers::new(whole(&self.x), self.out.binding(), self.h_n.binding())
            .c_n(self.c_n.binding())
            .h0(whole(&self.states[0]))
            .c0(whole(&self.states[1]))
            .weights(self.parts.iter().map(weights))
    }
}

fn weights(part: &[wgpu::Buffer; 4]) -> RecurrentWeightBuffers<'_> {
    let [weight_ih, weight_hh, bias_ih, bias_hh] =
        part.each_ref().map(wgpu::Buffer::as_entire_buffer_binding);
    RecurrentWeightBuffers::new(weight_ih, weight_hh).bias_ih(bias_ih).bias_hh(bias_hh)
}

fn lstm() -> RecurrentShape {
    shape(RecurrentCell::Lstm).initial(true)
}

#[test]
fn calls_in_one_encoder_share_scratch_on_a_device_with_default_limits() {
    let adapter = pollster::block_on(Gpu::adapters()).expect("an adapter").swap_remove(0);
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    for kind in [TileKind::Staged, TileKind::Direct] {
        let kernels = Kernels::new(&device, Options::default().tile_kind(kind)).unwrap();
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut made = vec![];
        let mut shared = None;
        for (shape, seed) in [(lstm().layers(3).bidirectional(true), 1), (lstm().layers(2).block(Some(2)), 2)]
        {
            let call = Call::<f32>::new(shape, 1.0, seed);
            let plan = kernels.recurrent(&shape).unwrap();
            assert!(plan.scratch_bytes() > 0 && plan.flops() > 0.0 && plan.block() >= 2);
            let scratch = shared.get_or_insert_with(|| plan.scratch().unwrap());
            let buffers = Buffers::new(&device, &call);
            plan.bind_with(buffers.all(), scratch).unwrap().encode(&mut encoder);
            made.push((call, buffers));
        }
        queue.submit([encoder.finish()]);
        for (call, buffers) in made {
            let take = |tensor: &Guarded| tensor.take(&device, &queue);
            let got = (take(&buffers.out), take(&buffers.h_n), take(&buffers.c_n));
            let exact =
                call.with(|inputs| wgpu_attention::reference::recurrent(&call.shape, inputs)).unwrap();
            call.compared(&exact, [&got.0, &got.1, &got.2]).unwrap();
        }
    }
}

#[test]
fn stages_in_turn_are_the_whole() {
    let call = Call::<f32>::new(lstm(), 1.0, 3);
    let (device, queue) = (gpu().device(), gpu().queue());
    let buffers = Buffers::new(device, &call);
    let bound = gpu().kernels().recurrent(&call.shape).unwrap().bind(buffers.all()).unwrap();
    assert_eq!(bound.dispatches(), 1 + call.shape.steps);
    let mut encoder = device.create_command_encoder(&Default::default());
    for stage in Stage::ALL {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        bound.dispatch_stage(&mut pass, stage);
    }
    queue.submit([encoder.finish()]);
    assert_eq!(buffers.out.take(device, queue), call.run().out);
}

#[test]
fn bad_shapes_are_refused_one_by_one() {
    let refused = |shape: RecurrentShape, words: &[&str]| {
        let error = gpu().kernels().recurrent(&shape).expect_err("refused");
        let text = error.to_string();
        assert!(matches!(error, Error::Argument { .. } | Error::Limit { .. }), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}: {words:?}");
    };
    let of =
        |batch, steps, input, hidden| RecurrentShape::new(RecurrentCell::Gru, batch, steps, input, hidden);
    refused(of(1, 0, 1, 1), &["steps", "at least 1"]);
    refused(of(1, 1, 0, 1), &["input", "at least 1"]);
    refused(of(1, 1, 1, 0), &["hidden", "at least 1"]);
    refused(of(1, 1, 1, 1).layers(0), &["layers", "at least 1"]);
    refused(of(1, 1, 1, 1).block(Some(0)), &["block", "at least 1"]);
    refused(of(1 << 20, 1 << 12, 1, 1), &["x", "4294967295"]);
    refused(of(1 << 10, 1 << 12, 1, 1 << 10), &["out", "4294967295"]);
    refused(of(1, 1, 1, 1 << 16), &["weights", "4294967295"]);
    refused(of(1 << 20, 1, 1, 1 << 11).layers(2), &["states", "4294967295"]);
    refused(of(1 << 18, 1, 1, 1 << 12), &["input products", "max_storage_buffer_binding_size"]);
    let name = "lstn".parse::<RecurrentCell>().unwrap_err().to_string();
    assert!(name.contains("`lstm`") && name.contains("`lstn`"), "{name}");
    assert!(RecurrentCell::ALL.iter().all(|cell| cell.name().parse() == Ok(*cell)));
}

#[test]
fn bad_slices_are_refused_one_by_one() {
    let shape = RecurrentShape::new(RecurrentCell::Lstm, 2, 3, 5, 4).initial(true);
    let data = vec![0.5f32; 200];
    let (x, w_ih, w_hh, bias, state) = (&data[..30], &data[..80], &data[..64], &data[..16], &data[..8]);
    let whole = || RecurrentWeights::new(w_ih, w_hh).bias_ih(bias).bias_hh(bias);
    let cases: [(RecurrentWeights<'_, f32>, &str); 6] = [
        (whole().weight_ih(w_hh), "weight_ih"),
        (whole().weight_hh(w_ih), "weight_hh"),
        (whole().bias_ih(None), "bias_ih"),
        (whole().bias_ih(x), "bias_ih"),
        (whole().bias_hh(None), "bias_hh"),
        (whole().bias_hh(x), "bias_hh"),
    ];
    let refused = |shape: RecurrentShape, inputs: RecurrentInputs<'_, f32>, name: &str| {
        let error = gpu().recurrent(&shape, &inputs).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{name}: {error}");
    };
    for (weights, name) in cases {
        refused(shape, RecurrentInputs::new(x, &[weights]).h0(state).c0(state), name);
    }
    let weights = [whole()];
    let good = || RecurrentInputs::new(x, &weights).h0(state).c0(state);
    gpu().recurrent(&shape, &good()).unwrap();
    refused(shape, good().x(&data[..31]), "x");
    refused(shape, good().h0(None), "h0");
    refused(shape, good().h0(bias), "h0");
    refused(shape, good().c0(None), "c0");
    refused(shape, good().c0(bias), "c0");
    refused(shape.initial(false), good().c0(None), "h0");
    refused(shape.initial(false), good().h0(None), "c0");
    refused(shape.bias(false), good(), "bias_ih");
    refused(shape.bidirectional(true), good(), "weights");
    refused(shape.layers(2), good(), "weights");
    let empty = RecurrentShape::new(RecurrentCell::Lstm, 0, 3, 5, 4);
    let none = gpu().recurrent(&empty, &RecurrentInputs::new(&[], &weights)).unwrap();
    assert!(none.out.is_empty() && none.h_n.is_empty() && none.c_n == Some(vec![]));
}

#[test]
fn bad_buffers_are_refused_one_by_one() {
    let call = Call::<f32>::new(lstm(), 1.0, 3);
    let device = gpu().device();
    let (buffers, small) = (Buffers::new(device, &call), storage(device, &[0.0; 8]));
    let plan = gpu().kernels().recurrent(&call.shape).unwrap();
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let good = || buffers.all();
    plan.bind(good()).unwrap();
    let of_weights = |change: &dyn Fn(&mut RecurrentWeightBuffers<'_>)| {
        let mut all = good();
        change(&mut all.weights[0]);
        all
    };
    // The same buffers live as long as the test.
    let tiny = || whole(&small);
    let cases = [
        ("x", good().x(tiny())),
        ("out", good().out(tiny())),
        ("h_n", good().h_n(tiny())),
        ("c_n", good().c_n(tiny())),
        ("c_n", good().c_n(None)),
        ("h0", good().h0(None)),
        ("c0", good().c0(tiny())),
        ("weights", good().weights([])),
        ("bias_ih", of_weights(&|part| part.bias_ih = None)),
        ("bias_hh", of_weights(&|part| part.bias_hh = None)),
        ("out", good().out(whole(&buffers.x))),
        ("h_n", good().h_n(whole(&buffers.states[0]))),
        ("c_n", good().c_n(whole(&buffers.states[1]))),
        ("c_n", good().c_n(buffers.h_n.binding())),
        ("out", good().out(wgpu::BufferBinding { buffer: &buffers.out.buffer, offset: 4, size: None })),
    ];
    for (name, buffers) in cases {
        let error = plan.bind(buffers).expect_err(name);
        assert!(matches!(&error, Error::Argument { name: got, .. } if got == name), "{name}: {error}");
    }
    let longer = gpu().kernels().recurrent(&call.shape.steps(6)).unwrap();
    let more = Call::<f32>::new(*longer.shape(), 1.0, 3);
    let more = Buffers::new(device, &more);
    let error = longer.bind_with(more.all(), &plan.scratch().unwrap()).expect_err("too little scratch");
    assert!(error.to_string().contains("scratch"), "{error}");
}

//! All tensors of a call in one buffer, at ranges that do not meet (`Options::shared_buffers`).

use super::{assert_right_under, gpu, read, storage, tensors};
use wgpu_attention::{
    AttentionBuffers, AttentionShape, BiasStrides, Causal, Error, Full, Inputs, Kernels, LshBuffers,
    LshInputs, LshOptions, MatmulBuffers, MatmulShape, Options, Pattern, Score, Strided,
};

const GAP: f32 = -7.0;

/// One buffer that holds tensors, each behind a gap.
struct OneBuffer {
    buffer: wgpu::Buffer,
    places: Vec<(usize, usize)>,
}

impl OneBuffer {
    fn new(tensors: &[&[f32]]) -> Self {
        let step = gpu().device().limits().min_storage_buffer_offset_alignment as usize / 4;
        let (mut all, mut places) = (vec![], vec![]);
        for tensor in tensors {
            all.resize((all.len() + 1).next_multiple_of(step), GAP);
            places.push((all.len(), tensor.len()));
            all.extend_from_slice(tensor);
        }
        Self { buffer: storage(gpu().device(), &all), places }
    }

    /// The n-th tensor.
    fn at(&self, n: usize) -> wgpu::BufferBinding<'_> {
        let (at, len) = self.places[n];
        let size = wgpu::BufferSize::new(4 * len as u64);
        wgpu::BufferBinding { buffer: &self.buffer, offset: 4 * at as u64, size }
    }

    /// The tensors after a call, once the gaps are found untouched.
    fn run(&self, call: &wgpu_attention::Call) -> Vec<Vec<f32>> {
        let mut encoder = gpu().device().create_command_encoder(&Default::default());
        call.encode(&mut encoder);
        gpu().queue().submit([encoder.finish()]);
        let all = read(gpu().device(), gpu().queue(), &self.buffer);
        let in_a_tensor = |n: usize| self.places.iter().any(|&(at, len)| (at..at + len).contains(&n));
        let gaps = (0..all.len()).filter(|&n| !in_a_tensor(n));
        assert!(gaps.into_iter().all(|n| all[n] == GAP), "a gap was written");
        self.places.iter().map(|&(at, len)| all[at..at + len].to_vec()).collect()
    }
}

fn kernels(options: Options) -> Kernels {
    Kernels::new(gpu().device(), options).unwrap()
}

/// One part, several, splits; with lse and a bias.
#[test]
fn attention_in_one_buffer() {
    let shared = Options::default().shared_buffers(true);
    let strided = Strided::new(8).unwrap();
    let cases: [(Options, &dyn Pattern); 3] =
        [(shared, &Causal), (shared, &strided), (shared.splits(3), &Causal)];
    let shape = AttentionShape::new(2, 2, 90, 16);
    let attention = shape.score(Score::new().bias(BiasStrides::broadcast([1, 1, 90, 90])));
    let [q, k, v] = tensors(shape);
    let bias: Vec<f32> = (0..90 * 90).map(|n| (n as f32 * 0.11).cos()).collect();
    let (out, lse) = (vec![f32::NAN; shape.len_out()], vec![f32::NAN; shape.len_lse()]);
    for (options, pattern) in cases {
        let one = OneBuffer::new(&[&q, &k, &v, &bias, &out, &lse]);
        let plan = kernels(options).attention(&attention, pattern).unwrap();
        let buffers = AttentionBuffers::new(one.at(0), one.at(1), one.at(2), one.at(4));
        let call = plan.bind(buffers.tensor("bias", one.at(3)).lse(one.at(5))).unwrap();
        let got = one.run(&call);
        assert!([&q, &k, &v, &bias].into_iter().eq(&got[..4]), "inputs stay as they are");
        let inputs = Inputs::new(&q, &k, &v).tensor("bias", &bias);
        assert_right_under(&attention, &inputs, pattern, &got[4], Some(&got[5]));
    }
}

#[test]
fn other_kernels_in_one_buffer() {
    let shared = kernels(Options::default().shared_buffers(true));
    let shape = MatmulShape::new(2, 2, 2).bias(true);
    let one = OneBuffer::new(&[&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 0.0, 2.0], &[10.0, 20.0], &[f32::NAN; 4]]);
    let buffers = MatmulBuffers::new(one.at(0), one.at(1), one.at(3)).bias(Some(one.at(2)));
    let call = shared.matmul(&shape).unwrap().bind(buffers).unwrap();
    assert_eq!(one.run(&call)[3], [11.0, 24.0, 13.0, 28.0]);

    let shape = AttentionShape::new(1, 2, 100, 16);
    let options = LshOptions::new(2, 8, 16);
    let [qk, _, v] = tensors(shape);
    let one = OneBuffer::new(&[&qk, &v, &vec![f32::NAN; shape.len_out()], &[f32::NAN; 200]]);
    let buffers = LshBuffers::new(one.at(0), one.at(1), one.at(2)).lse(one.at(3));
    let call = shared.lsh(shape, options.clone()).unwrap().bind(buffers).unwrap();
    let got = one.run(&call);
    let inputs = LshInputs::new(&qk, &v);
    let want = gpu().lsh::<f32, f32>(shape, &options, &inputs).unwrap();
    assert_eq!((&got[2], &got[3]), (&want.out, &want.lse));
}

#[test]
fn ranges_that_meet_are_refused() {
    let shape = AttentionShape::new(1, 1, 64, 16);
    let zeros = vec![0.0; shape.len_q()];
    let one = OneBuffer::new(&[&zeros, &zeros, &zeros, &zeros, &zeros[..64]]);
    let good = || AttentionBuffers::new(one.at(0), one.at(1), one.at(2), one.at(3)).lse(one.at(4));
    let shared = kernels(Options::default().shared_buffers(true)).attention(shape, &Full).unwrap();
    shared.bind(good()).unwrap();
    // Reads may meet.
    shared.bind(AttentionBuffers::new(one.at(0), one.at(0), one.at(0), one.at(3)).lse(one.at(4))).unwrap();
    let to = |out| AttentionBuffers::new(one.at(0), one.at(1), one.at(2), out).lse(one.at(4));
    // The last 256 bytes of out, and all but the first 256 of k with what follows.
    let end = wgpu::BufferBinding {
        buffer: &one.buffer,
        offset: one.at(3).offset + 4096 - 256,
        size: wgpu::BufferSize::new(256),
    };
    let shifted = wgpu::BufferBinding { offset: one.at(1).offset + 256, ..one.at(1) };
    for (name, buffers) in [
        ("out", to(one.at(0))),
        ("out", to(shifted)),
        ("lse", good().lse(one.at(2))),
        ("lse", good().lse(end)),
    ] {
        let error = shared.bind(buffers).expect_err(name);
        let refused = matches!(&error, Error::Argument { name: got, .. } if got == name);
        assert!(refused && error.to_string().contains("bytes apart from those of"), "{name}: {error}");
    }

    // Without the option, what is written has a buffer of its own, whatever the ranges.
    let plain = kernels(Options::default()).attention(shape, &Full).unwrap();
    let error = plain.bind(good()).unwrap_err().to_string();
    assert!(error.contains("need a buffer other than that of"), "{error}");
}

//! Buffers whose every byte outside the tensor is poison, and the device.

use half::{bf16, f16};
use wgpu::util::DeviceExt;
use wgpu_attention::{Call, Counter, ElementType, Gpu, KernelPath, Kernels, Options, RowStrides};
use wgpu_attention_testing::Devices;

/// A NaN in f32, and in both halves as f16 and as bf16.
const POISON: u32 = 0x7fff_7fff;

/// Bytes of poison behind a tensor; before it there is one unit of the offset alignment.
const GUARD_BYTES: usize = 256;

/// This thread's device, with cooperative matrices where it has them.
pub(crate) fn gpu() -> &'static Gpu {
    static GPUS: Devices = Devices::new();
    GPUS.of_this_thread(|| {
        let need = "an adapter: run the tests by `cargo xtask test`";
        let adapters = pollster::block_on(Gpu::adapters()).expect(need);
        let token = wgpu_attention_experimental::allowed();
        pollster::block_on(Gpu::on_experimental(&adapters[0], Options::default(), token)).expect(need)
    })
}

/// The same device, products in its cooperative matrices.
pub(crate) fn cooperative() -> Kernels {
    let options = gpu().kernels().options();
    assert!(
        options.matrix_size.is_some(),
        "the adapter has no cooperative matrices of f16: run the tests by `cargo xtask test`, which fetches a software \
         adapter that has"
    );
    gpu().kernels().with_options(options.path(KernelPath::Cooperative)).expect("valid options")
}

/// The kernels as they are.
pub(crate) fn kernels() -> &'static Kernels {
    gpu().kernels()
}

/// Rows of a tensor in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) strides: RowStrides,
    pub(crate) batch: usize,
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

impl Rows {
    pub(crate) fn contiguous(rows: usize, width: usize) -> Self {
        Self { strides: RowStrides::contiguous(rows, width), batch: 1, rows, width }
    }

    /// Indices of the elements in the order of the contiguous tensor.
    fn places(&self) -> impl Iterator<Item = usize> + use<'_> {
        let row = |batch, row| self.strides.at(batch, row)..self.strides.at(batch, row) + self.width;
        (0..self.batch).flat_map(move |b| (0..self.rows).flat_map(move |r| row(b, r)))
    }

    /// Contiguous elements spread to where they lie; what is between them is NaN.
    pub(crate) fn spread(&self, contiguous: &[f64]) -> Vec<f64> {
        let len = self.places().max().map_or(0, |last| last + 1);
        let mut all = vec![f64::NAN; len];
        self.places().zip(contiguous).for_each(|(place, &x)| all[place] = x);
        all
    }
}

/// Rounds to a type.
pub(crate) fn rounded(values: impl IntoIterator<Item = f64>, element: ElementType) -> Vec<f64> {
    let round = |x: f64| match element {
        ElementType::F32 => f64::from(x as f32),
        ElementType::F16 => f16::from_f64(x).to_f64(),
        ElementType::Bf16 => bf16::from_f64(x).to_f64(),
    };
    values.into_iter().map(round).collect()
}

/// N(0, 1), rounded to a type.
pub(crate) fn normal(seed: u64, stream: u64, len: usize, element: ElementType) -> Vec<f64> {
    let draw = Counter::new(seed, stream);
    rounded((0..len as u64).map(|n| draw.normal(n)), element)
}

fn encode(values: &[f64], element: ElementType) -> Vec<u8> {
    let bytes = |x: &f64| match element {
        ElementType::F32 => (*x as f32).to_le_bytes().to_vec(),
        ElementType::F16 => f16::from_f64(*x).to_le_bytes().to_vec(),
        ElementType::Bf16 => bf16::from_f64(*x).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

fn decode(bytes: &[u8], element: ElementType) -> Vec<f64> {
    let half = |b: &[u8]| [b[0], b[1]];
    match element {
        ElementType::F32 => {
            bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect()
        }
        ElementType::F16 => bytes.chunks(2).map(|b| f16::from_le_bytes(half(b)).to_f64()).collect(),
        ElementType::Bf16 => bytes.chunks(2).map(|b| bf16::from_le_bytes(half(b)).to_f64()).collect(),
    }
}

/// A tensor in a buffer of its own, poison all around it.
pub(crate) struct Guarded {
    pub(crate) buffer: wgpu::Buffer,
    offset: usize,
    bytes: usize,
}

impl Guarded {
    /// An input, or what an output holds before: `values` as they lie in memory. NaN among them is poison.
    pub(crate) fn new(values: &[f64], element: ElementType) -> Self {
        let device = gpu().device();
        let offset = device.limits().min_storage_buffer_offset_alignment as usize;
        let data = encode(values, element);
        let mut words = vec![POISON; (offset + data.len().next_multiple_of(4) + GUARD_BYTES) / 4];
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        let size = element.size_bytes();
        for (n, _) in values.iter().enumerate().filter(|(_, x)| !x.is_nan()) {
            all[offset + n * size..][..size].copy_from_slice(&data[n * size..][..size]);
        }
        let buffer = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: all,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        });
        Self { buffer, offset, bytes: data.len() }
    }

    /// Integers, for lookups.
    pub(crate) fn integers(values: &[u32]) -> Self {
        let bits: Vec<f64> = values.iter().map(|&n| f64::from(f32::from_bits(n))).collect();
        let mut tensor = Self::new(&vec![0.0; bits.len()], ElementType::F32);
        let mut words = vec![POISON; tensor.buffer.size() as usize / 4];
        words[tensor.offset / 4..][..values.len()].copy_from_slice(values);
        tensor.buffer = gpu().device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: bytemuck::cast_slice(&words),
            usage: wgpu::BufferUsages::STORAGE,
        });
        tensor
    }

    pub(crate) fn binding(&self) -> wgpu::BufferBinding<'_> {
        let size = wgpu::BufferSize::new(self.bytes.next_multiple_of(4) as u64);
        wgpu::BufferBinding { buffer: &self.buffer, offset: self.offset as u64, size }
    }
}

/// An output, and what it holds.
pub(crate) type Output<'a> = (&'a Guarded, Rows, ElementType);

/// The elements of an output after `calls`, once all the poison around and between them is found untouched.
pub(crate) fn run(
    calls: &[&Call],
    out: &Guarded,
    rows: Rows,
    element: ElementType,
) -> Result<Vec<f64>, String> {
    Ok(run_all(calls, &[(out, rows, element)])?.remove(0))
}

/// The same of several outputs.
pub(crate) fn run_all(calls: &[&Call], outputs: &[Output<'_>]) -> Result<Vec<Vec<f64>>, String> {
    let buffers: Vec<_> = outputs.iter().map(|(out, ..)| &out.buffer).collect();
    let all = read(calls, &buffers);
    outputs.iter().zip(all).map(|(output, bytes)| elements(*output, &bytes)).collect()
}

fn elements((out, rows, element): Output<'_>, bytes: &[u8]) -> Result<Vec<f64>, String> {
    let size = element.size_bytes();
    let mut mine = vec![false; bytes.len()];
    rows.places().for_each(|place| mine[out.offset + place * size..][..size].fill(true));
    let poison = POISON.to_le_bytes();
    if let Some(n) = (0..bytes.len()).find(|&n| !mine[n] && bytes[n] != poison[n % 4]) {
        let place = n as isize - out.offset as isize;
        return Err(format!("byte {place} of {} is not the output's, but was written", out.bytes));
    }
    let all = decode(&bytes[out.offset..][..out.bytes], element);
    Ok(rows.places().map(|place| all[place]).collect())
}

/// Records the calls into one encoder, submits, reads buffers back.
fn read(calls: &[&Call], from: &[&wgpu::Buffer]) -> Vec<Vec<u8>> {
    let device = gpu().device();
    let mut encoder = device.create_command_encoder(&Default::default());
    calls.iter().for_each(|call| call.encode(&mut encoder));
    let copied = |buffer: &&wgpu::Buffer| {
        let copy = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read-back"),
            size: buffer.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, copy.size());
        copy
    };
    let copies: Vec<_> = from.iter().map(copied).collect();
    let submission = gpu().queue().submit([encoder.finish()]);
    for copy in &copies {
        copy.map_async(wgpu::MapMode::Read, .., |result| result.expect("mapping the copy"));
    }
    let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
    device.poll(wait).expect("waiting for the device");
    copies.iter().map(|copy| copy.slice(..).get_mapped_range().expect("mapped").to_vec()).collect()
}

/// A shape, but for what `change` does to it.
pub(crate) fn with<S>(mut shape: S, change: impl FnOnce(&mut S)) -> S {
    change(&mut shape);
    shape
}

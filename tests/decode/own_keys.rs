//! Packed sequences over keys and values that are the caller's own, packed, too: lengths of both in the device's memory.

use crate::Checked;
use crate::oracles::{ORACLES, Oracle};
use crate::session::{buffer, inside};
use half::{bf16, f16};
use std::ops::Range;
use wgpu_attention::reference::{
    self, Got, Kind, Report, Rows, Tensors, VerifyOptions, WeightFormat, oracle,
};
use wgpu_attention::wgsl::DecodeVariant;
use wgpu_attention::{
    Call, Element, ElementType, Gpu, Layout, Layouts, Options, PackedBuffers, PackedPlan, PackedShape,
    Position, Storage, Strides,
};
use wgpu_attention_testing::{Counted, POISON, allocated, gpu, gpu_with, storage};

use ElementType::{Bf16, F16, F32};

/// Bytes of poison around each tensor.
const GUARD: usize = 256;

/// One plan and one bound call, and what is attended with it in turn.
#[derive(Debug, Clone)]
struct Case {
    shape: PackedShape,
    /// Offsets of queries and of keys.
    calls: Vec<[Vec<u32>; 2]>,
}

/// Rows of a sequence: of queries, and of keys.
type Own = [Range<usize>; 2];

/// A sequence, and what its queries address.
type Text<Q, KV> = (Tensors<Q, KV>, Option<oracle::Gather<Q, KV>>);

/// The buffers of a call, guarded.
struct Bound {
    gpu: Gpu,
    plan: PackedPlan,
    call: Call,
    /// q, k, v, offsets of queries and of keys, out, lse.
    buffers: [wgpu::Buffer; 7],
}

impl Bound {
    fn new(gpu: &Gpu, shape: &PackedShape) -> Result<Self, String> {
        let (device, queue) = (gpu.device(), gpu.queue());
        let (storage, ends) = (shape.storage, shape.sequences + 1);
        let sizes = [
            (shape.len_q(), storage.q),
            (shape.len_k(), storage.kv),
            (shape.len_v(), storage.kv),
            (ends, F32),
            (ends, F32),
            (shape.len_out(), storage.out),
            (shape.len_lse(), F32),
        ];
        let buffers = sizes.map(|(len, element)| {
            let bytes = (len * element.size_bytes()).next_multiple_of(4).max(16);
            buffer(device, queue, &vec![POISON; (2 * GUARD + bytes) / 4])
        });
        let plan = gpu.kernels().packed_sequences(shape).map_err(|e| e.to_string())?;
        let [q, k, v, q_offsets, k_offsets, out, lse] = buffers.each_ref().map(inside);
        let bound = PackedBuffers::new(q, k, v, q_offsets, k_offsets, out).lse(shape.lse.then_some(lse));
        let call = plan.bind(bound).map_err(|e| e.to_string())?;
        Ok(Self { gpu: gpu.clone(), plan, call, buffers })
    }

    fn write(&self, n: usize, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.gpu.queue().write_buffer(&self.buffers[n], GUARD as u64, &bytes);
    }

    fn run(&self) {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.call.encode(&mut encoder);
        self.gpu.queue().submit([encoder.finish()]);
    }

    /// What is between the guards, which are untouched.
    fn taken<T: bytemuck::Pod>(&self, n: usize, len: usize) -> Result<Vec<T>, String> {
        let words = wgpu_attention_testing::read(self.gpu.device(), self.gpu.queue(), &self.buffers[n]);
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let (own, poison) = (GUARD..GUARD + len * size_of::<T>(), POISON.to_le_bytes());
        match (0..bytes.len()).find(|at| !own.contains(at) && bytes[*at] != poison[at % 4]) {
            Some(at) => Err(format!("buffer {n}: byte {at} was written, and {own:?} are its own")),
            None => Ok(bytemuck::pod_collect_to_vec(&bytes[own])),
        }
    }
}

/// The rows of sequence b, as the documentation has it: the first offset is 0, what is past the end is cut off, and what falls is empty.
fn own_rows(offsets: &[u32], rows: usize, b: usize) -> Range<usize> {
    let offset = |b: usize| if b == 0 { 0 } else { (offsets[b] as usize).min(rows) };
    offset(b)..offset(b + 1).max(offset(b))
}

impl Case {
    fn new(shape: PackedShape, calls: &[[&[u32]; 2]]) -> Self {
        let calls = calls.iter().map(|call| call.map(<[u32]>::to_vec)).collect();
        Self { shape: shape.lse(true), calls }
    }

    fn check(&self, gpu: &Gpu, oracle: Oracle) -> Checked {
        let storage = self.shape.storage;
        let run = match (storage.q, storage.kv, storage.out) {
            (F32, F32, F32) => Self::typed::<f32, f32, f32>,
            (F32, F16, F32) => Self::typed::<f32, f16, f32>,
            (F16, F16, F16) => Self::typed::<f16, f16, f16>,
            (Bf16, Bf16, F32) => Self::typed::<bf16, bf16, f32>,
            (Bf16, Bf16, Bf16) => Self::typed::<bf16, bf16, bf16>,
            other => panic!("no test has the types {other:?} yet"),
        };
        run(self, gpu, oracle).map_err(|e| format!("{oracle:?}: {e}\n  {self:?}"))
    }

    fn typed<Q: Element, KV: Element, O: Element>(&self, gpu: &Gpu, oracle: Oracle) -> Checked {
        let bound = Bound::new(gpu, &self.shape)?;
        self.calls.iter().try_for_each(|call| self.attended::<Q, KV, O>(&bound, call, oracle))
    }

    fn attended<Q: Element, KV: Element, O: Element>(
        &self,
        bound: &Bound,
        offsets: &[Vec<u32>; 2],
        oracle: Oracle,
    ) -> Checked {
        let shape = &self.shape;
        let own: Vec<Own> = (0..shape.sequences)
            .map(|b| [own_rows(&offsets[0], shape.q_rows, b), own_rows(&offsets[1], shape.kv_rows, b)])
            .collect();
        let texts: Vec<Text<Q, KV>> =
            own.iter().enumerate().map(|(b, own)| self.text(b, own, oracle)).collect::<Result<_, _>>()?;
        self.feed(bound, &own, &texts);
        for (n, offsets) in offsets.iter().enumerate() {
            bound.write(3 + n, bytemuck::cast_slice(offsets));
        }
        bound.run();
        let out: Vec<O> = bound.taken(5, shape.len_out())?;
        let lse: Vec<f32> = bound.taken(6, shape.len_lse())?;
        for (b, (own, text)) in own.iter().zip(texts).enumerate().filter(|(_, (own, _))| !own[0].is_empty()) {
            let (out, lse) = self.of_rows(&own[0], &out, &lse);
            let got = Got::new(&out).lse(&lse[..]);
            self.judge(&bound.plan, own, text, got, oracle)
                .map_err(|e| format!("sequence {b} of {offsets:?}: {e}"))?;
        }
        self.check_nobodys(&own, &out, &lse)
    }

    fn text<Q: Element, KV: Element>(
        &self,
        b: usize,
        own: &Own,
        oracle: Oracle,
    ) -> Result<Text<Q, KV>, String> {
        let (attention, seed) = (self.shape.of_sequence(own[0].len(), own[1].len()), 7 + b as u64);
        let alone = |tensors| (tensors, None);
        let made = match oracle {
            Oracle::Count => oracle::count_inputs(&attention, seed).map(alone),
            Oracle::Gather if !own[0].is_empty() && !own[1].is_empty() => {
                oracle::gather_inputs(&attention, &self.shape.pattern(), seed)
                    .map(|gather| (gather.tensors.clone(), Some(gather)))
            }
            Oracle::Bound(kind) => reference::random(&attention, kind, seed).map(alone),
            Oracle::Gather => reference::random(&attention, Kind::Normal, seed).map(alone),
        };
        made.map_err(|e| e.to_string())
    }

    fn strides(&self) -> [Strides; 4] {
        let shape = &self.shape;
        let all = shape.of_sequence(shape.q_rows, shape.kv_rows).layouts(shape.layouts);
        [all.q_strides(), all.k_strides(), all.v_strides(), all.out_strides()]
    }

    /// Writes all sequences; rows that are nobody's are NaN.
    fn feed<Q: Element, KV: Element>(&self, bound: &Bound, own: &[Own], texts: &[Text<Q, KV>]) {
        let (shape, [q, k, v, _]) = (&self.shape, self.strides());
        let [mut all_k, mut all_v] =
            [shape.len_k(), shape.len_v()].map(|len| vec![KV::from_f64(f64::NAN); len]);
        let mut all_q = vec![Q::from_f64(f64::NAN); shape.len_q()];
        for ([queries, keys], (text, _)) in own.iter().zip(texts) {
            put(&mut all_q, q, &text.q, queries, shape.heads, shape.head_dim);
            put(&mut all_k, k, &text.k, keys, shape.kv_heads, shape.head_dim);
            put(&mut all_v, v, &text.v, keys, shape.kv_heads, shape.value_dim);
        }
        bound.write(0, bytemuck::cast_slice(&all_q));
        bound.write(1, bytemuck::cast_slice(&all_k));
        bound.write(2, bytemuck::cast_slice(&all_v));
    }

    /// out `[H, n, dv]` and lse `[H, n]` of some rows.
    fn of_rows<O: Element>(&self, rows: &Range<usize>, out: &[O], lse: &[f32]) -> (Vec<O>, Vec<f32>) {
        let (shape, [.., strides]) = (&self.shape, self.strides());
        let places = (0..shape.heads).flat_map(|head| rows.clone().map(move |row| (head, row)));
        let row = |(head, row)| out[strides.at(0, head, row)..][..shape.value_dim].to_vec();
        let own_lse = places.clone().map(|(head, row)| lse[head * shape.q_rows + row]).collect();
        (places.flat_map(row).collect(), own_lse)
    }

    fn check_nobodys<O: Element>(&self, own: &[Own], out: &[O], lse: &[f32]) -> Checked {
        for row in (0..self.shape.q_rows).filter(|row| !own.iter().any(|own| own[0].contains(row))) {
            let (out, lse) = self.of_rows(&(row..row + 1), out, lse);
            if out.iter().any(|&x| Into::<f64>::into(x) != 0.0) || lse.iter().any(|&x| x != f32::MIN) {
                return Err(format!("row {row} is nobody's, and not empty"));
            }
        }
        Ok(())
    }

    fn judge<Q: Element, KV: Element, O: Element>(
        &self,
        plan: &PackedPlan,
        own: &Own,
        text: Text<Q, KV>,
        got: Got<'_, O>,
        oracle: Oracle,
    ) -> Checked {
        let (length, splits) = (own[1].len(), plan.splits());
        let (attention, pattern) = (self.shape.of_sequence(own[0].len(), length), self.shape.pattern());
        let (tensors, gather) = text;
        let (inputs, rows) = (tensors.inputs(), Rows::Sample { count: 96, seed: 1 });
        let report: Report = match (oracle, &gather) {
            (Oracle::Count, _) => oracle::check_count(&attention, &inputs, &pattern, got, rows),
            (Oracle::Gather, Some(gather)) => {
                oracle::check_gather(&attention, gather, &pattern, got, rows, WeightFormat::F32)
            }
            _ => {
                // Chunks are dealt out in turn.
                let split_of = |key: u32| key as usize / DecodeVariant::CHUNK % splits;
                let order = |_: Position| {
                    let keys =
                        |split| (0..length as u32).filter(|&key| split_of(key) == split).collect::<Vec<_>>();
                    (0..splits).map(keys).filter(|keys| !keys.is_empty()).collect()
                };
                let tiles = |_: Position| length.div_ceil(128) + length.div_ceil(DecodeVariant::CHUNK);
                let options = VerifyOptions::default().rows(rows).order(&order).tiles(&tiles);
                let report = reference::verify(&attention, &inputs, &pattern, got, options);
                if let Ok(report) = &report {
                    println!("packed sequences, {oracle:?}: worst error/bound {:.3}", report.ratio());
                }
                report
            }
        }
        .map_err(|e| e.to_string())?;
        match report.pass && report.unspecified == 0 && report.rows_checked > 0 {
            true => Ok(()),
            false => Err(report.to_string()),
        }
    }
}

/// `[heads, n, dim]` to some rows of a tensor.
fn put<T: Copy>(to: &mut [T], strides: Strides, from: &[T], rows: &Range<usize>, heads: usize, dim: usize) {
    for (n, row) in (0..heads * rows.len()).map(|n| (n, rows.start + n % rows.len())) {
        let at = strides.at(0, n / rows.len(), row);
        to[at..at + dim].copy_from_slice(&from[n * dim..][..dim]);
    }
}

fn all(gpu: &Gpu, case: &Case) -> Checked {
    ORACLES.iter().try_for_each(|&oracle| case.check(gpu, oracle))
}

/// Sequences with few queries and keys, none of either, more queries than keys.
const LENGTHS: [[&[u32]; 2]; 3] = [
    [&[0, 5, 5, 12, 20], &[0, 9, 14, 24, 37]],
    // No keys, no queries; the first offsets are not believed.
    [&[3, 7, 9, 9, 23], &[5, 30, 30, 36, 37]],
    // More queries than keys.
    [&[0, 1, 20, 22, 22], &[0, 12, 16, 39, 40]],
];

/// Offsets that are wrong: past the end, and falling ones of keys, under which no two sequences share any.
const WRONG: [[&[u32]; 2]; 3] = [
    [&[0, 5, 9, 15, u32::MAX], &[0, 12, 44, u32::MAX, 3]],
    [&[u32::MAX, 5, 5, 7, 7], &[0, 20, 20, 11, 9]],
    [&[0, 25, 30, 24, 24], &[u32::MAX, 41, 0, 0, 0]],
];

/// Grouped heads, values of another size.
fn small() -> PackedShape {
    PackedShape::new(4, 6, [24, 40], 16).kv_heads(2).value_dim(20)
}

/// All checks of those; with windows, too.
pub(crate) fn shared(gpu: &Gpu) -> Checked {
    all(gpu, &Case::new(small(), &LENGTHS))?;
    Case::new(small(), &WRONG).check(gpu, Oracle::Count)?;
    all(gpu, &Case::new(small().before(Some(3)).after(Some(2)).sinks(2), &LENGTHS))
}

#[test]
fn sequences_share_tensors_of_queries_and_of_keys() {
    shared(gpu()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn wrong_offsets_are_cut_off() {
    all(gpu(), &Case::new(small(), &WRONG)).unwrap_or_else(|e| panic!("{e}"));
    // Queries that several sequences claim: nothing outside is read or written.
    let bound = Bound::new(gpu(), &small().lse(true)).unwrap();
    for n in [0, 1, 2] {
        bound.write(n, bytemuck::cast_slice(&vec![0.5f32; [24 * 6 * 16, 40 * 2 * 16, 40 * 2 * 20][n]]));
    }
    for offsets in [[0u32, 20, 2, 24, 7], [9, u32::MAX, 0, u32::MAX, 0], [7, 9, 3, 3, 3]] {
        bound.write(3, bytemuck::cast_slice(&offsets));
        bound.write(4, bytemuck::cast_slice(&offsets));
        bound.run();
        let out: Vec<f32> = bound.taken(5, 24 * 6 * 20).unwrap();
        // What lies around the tensors is NaN.
        assert!(out.iter().all(|&x| x == 0.0 || (x - 0.5).abs() < 1e-6), "{offsets:?}");
        bound.taken::<f32>(6, 24 * 6).unwrap();
    }
}

#[test]
fn long_sequences_in_chunks_and_splits() {
    let lengths: [[&[u32]; 2]; 3] =
        [[&[0, 300, 301], &[0, 300, 900]], [&[0, 1, 2], &[0, 513, 900]], [&[0, 0, 310], &[0, 257, 257]]];
    for splits in [1, 3] {
        let gpu = gpu_with(Options::default().splits(splits));
        let shape = PackedShape::new(2, 2, [310, 900], 16).kv_heads(1);
        for shape in [shape, shape.after(None), shape.before(Some(270)).after(Some(30)).sinks(3)] {
            all(&gpu, &Case::new(shape, &lengths)).unwrap_or_else(|e| panic!("{splits} splits: {e}"));
        }
    }
}

#[test]
fn windows_on_both_sides_and_none() {
    for (before, after, sinks) in [
        (None, None, 0),
        (Some(0), Some(0), 0),
        (Some(2), None, 1),
        (None, Some(7), 0),
        (Some(usize::MAX), Some(usize::MAX), usize::MAX),
        (Some(1), Some(0), 30),
    ] {
        let case = Case::new(small().before(before).after(after).sinks(sinks), &LENGTHS);
        all(gpu(), &case).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn every_storage_size_and_layout() {
    let storages = [
        Storage::default(),
        Storage::default().kv(F16),
        Storage::all(F16),
        Storage::all(Bf16).out(F32),
        Storage::all(Bf16),
    ];
    for storage in storages {
        for (head_dim, value_dim) in [(7, 3), (16, 64), (80, 128)] {
            let shape = PackedShape::new(4, 4, [24, 40], head_dim).kv_heads(2).value_dim(value_dim);
            for layouts in [Layouts::all(Layout::Blhd), Layouts::all(Layout::Bhld)] {
                let case = Case::new(shape.storage(storage).layouts(layouts), &LENGTHS);
                case.check(gpu(), Oracle::Bound(Kind::Normal)).unwrap_or_else(|e| panic!("{e}"));
                case.check(gpu(), Oracle::Count).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
    // q, k and v in one row each of [rows, (H + 2 Hkv) d], an odd place.
    let packed = |offset| Layout::Strided(Strides::new(0, 12, 10 * 12 + 1).offset(offset));
    let layouts = Layouts::all(Layout::Blhd).q(packed(1)).k(packed(73)).v(packed(97));
    let case = Case::new(PackedShape::new(4, 6, [24, 40], 12).kv_heads(2).layouts(layouts), &LENGTHS);
    for oracle in [Oracle::Bound(Kind::Arange), Oracle::Gather] {
        case.check(gpu(), oracle).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn every_kind_of_numbers_and_wide_rows() {
    for kind in Kind::ALL {
        for (head_dim, value_dim) in [(32, 32), (576, 512)] {
            let shape =
                PackedShape::new(4, 3, [24, 40], head_dim).kv_heads(1).value_dim(value_dim).scale(Some(0.07));
            Case::new(shape, &LENGTHS).check(gpu(), Oracle::Bound(kind)).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

/// Values that are a part of the keys' rows: one buffer, two layouts.
#[test]
fn keys_and_values_may_be_one_tensor() {
    let shape = PackedShape::new(2, 4, [8, 12], 24).kv_heads(1).value_dim(16);
    let own = Layout::Strided(Strides::new(0, 24, 24).offset(8));
    let one = shape.layouts(shape.layouts.v(own));
    let (device, queue) = (gpu().device(), gpu().queue());
    let text = reference::random::<f32, f32>(shape.of_sequence(8, 12), Kind::Normal, 1).unwrap();
    let part: Vec<f32> = text.k.chunks(24).flat_map(|row| row[8..].to_vec()).collect();
    let [q, k, v] = [&text.q, &text.k, &part].map(|x| storage(device, x));
    let offsets = buffer(device, queue, &[0, 3, 8]);
    let keys = buffer(device, queue, &[0, 5, 12]);
    let out = |shape: &PackedShape, v: &wgpu::Buffer| {
        let out = storage(device, &vec![f32::NAN; shape.len_out()]);
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let buffers =
            PackedBuffers::new(whole(&q), whole(&k), whole(v), whole(&offsets), whole(&keys), whole(&out));
        let call = gpu().kernels().packed_sequences(shape).unwrap().bind(buffers).unwrap();
        let mut encoder = device.create_command_encoder(&Default::default());
        call.encode(&mut encoder);
        queue.submit([encoder.finish()]);
        wgpu_attention_testing::read(device, queue, &out)
    };
    let (one, two) = (out(&one, &k), out(&shape, &v));
    assert!(one == two && one.iter().all(|x: &f32| x.is_finite()));
}

#[test]
fn other_lengths_take_nothing_but_their_commands() {
    let counted = Counted::new();
    let bound = Bound::new(&counted.gpu, &small()).unwrap();
    let run = |n: usize| {
        for (at, offsets) in LENGTHS[n % 3].iter().enumerate() {
            bound.write(3 + at, bytemuck::cast_slice(offsets));
        }
        bound.run();
    };
    (0..4).for_each(run);
    let before = (counted.shaders(), allocated(&counted.gpu));
    (0..12).for_each(run);
    assert!(before.0 > 0);
    assert_eq!((counted.shaders(), allocated(&counted.gpu)), before);
}

#[test]
fn what_cannot_be_is_refused() {
    let shape = small();
    let overlap = shape.layouts.out(Layout::Strided(Strides::new(0, 4, 20)));
    for (shape, words) in [
        (PackedShape::new(0, 6, [24, 40], 16), "sequences: need at least 1, got 0"),
        (PackedShape::new(4, 6, [0, 40], 16), "q_rows: need at least 1, got 0"),
        (PackedShape::new(4, 6, [24, 0], 16), "kv_rows: need at least 1, got 0"),
        (PackedShape::new(4, 6, [24, 40], 577), "head_dim: need 1 to 576, got 577"),
        (shape.value_dim(513), "value_dim: need 1 to 512, got 513"),
        (shape.kv_heads(4), "kv_heads: need a divisor of heads (6), got 4"),
        (shape.scale(Some(f32::INFINITY)), "scale: need a finite number"),
        (shape.layouts(overlap), "out_layout: need rows that do not overlap"),
        (PackedShape::new(4, 1, [24, 1 << 31], 1), "rows needs"),
    ] {
        let error = gpu().kernels().packed_sequences(&shape).expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let error =
        gpu_with(Options::default().splits(2)).kernels().packed_sequences(&shape).unwrap_err().to_string();
    assert!(error.contains("splits: need 1 to 1"), "{error}");
    let bound = Bound::new(gpu(), &shape).unwrap();
    let few = storage(gpu().device(), &[0.0; 4]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let buffers = || {
        let [q, k, v, q_offsets, k_offsets, out, _] = bound.buffers.each_ref().map(whole);
        PackedBuffers::new(q, k, v, q_offsets, k_offsets, out)
    };
    for (buffers, words) in [
        (buffers().k(whole(&few)), "k: need 5120 bytes"),
        (buffers().v(whole(&few)), "v: need 6400 bytes"),
        (buffers().q_offsets(whole(&few)), "q_offsets: need 20 bytes"),
        (buffers().k_offsets(whole(&few)), "k_offsets: need 20 bytes"),
        (buffers().q(whole(&bound.buffers[5])), "out: need a buffer other than that of q"),
        (buffers().lse(whole(&bound.buffers[6])), "lse: need none"),
    ] {
        let error = bound.plan.bind(buffers).expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let one = gpu().kernels().packed_sequences(&PackedShape::new(1, 1, [1, 1], 4)).unwrap();
    let error = bound.plan.bind_with(buffers(), &one.scratch().unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("scratch: need"), "{error}");
    bound.plan.bind_with(buffers(), &bound.plan.scratch().unwrap()).unwrap();
}

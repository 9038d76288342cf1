//! Every row of every step against the reference of the whole sequence: within its bound, exact counts, planted keys.

use crate::Checked;
use crate::session::{Session, check_stored, out_strides};
use half::{bf16, f16};
use wgpu_attention::reference::{
    self, Got, Kind, Report, Rows, Tensors, VerifyOptions, WeightFormat, oracle,
};
use wgpu_attention::wgsl::{DecodeVariant, TileKind};
use wgpu_attention::{
    CacheShape, DecodeShape, Element, ElementType, Gpu, Layout, Layouts, Options, Position, Strides,
};
use wgpu_attention_testing::{gpu, gpu_with};

use ElementType::{Bf16, F16, F32};

/// Sequences in steps.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) shape: DecodeShape,
    /// New positions per step and sequence.
    pub(crate) steps: Vec<Vec<usize>>,
    pub(crate) seed: u64,
}

/// What the tensors hold, and what is asked of the outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Oracle {
    Bound(Kind),
    Count,
    Gather,
}

pub(crate) const ORACLES: [Oracle; 3] = [Oracle::Bound(Kind::Normal), Oracle::Count, Oracle::Gather];

impl Case {
    /// All sequences alike: steps of so many.
    pub(crate) fn new(shape: DecodeShape, steps: &[usize]) -> Self {
        let steps = steps.iter().map(|&count| vec![count; shape.cache.batch]).collect();
        Self { shape: shape.lse(true), steps, seed: 3 }
    }

    fn length(&self, b: usize) -> usize {
        self.steps.iter().map(|counts| counts[b]).sum()
    }

    pub(crate) fn check(&self, oracle: Oracle) -> Checked {
        self.check_on(gpu(), oracle)
    }

    pub(crate) fn check_on(&self, gpu: &Gpu, oracle: Oracle) -> Checked {
        let shape = &self.shape;
        let run = match (shape.input, shape.cache.storage.element(), shape.output) {
            (F32, F32, F32) => Self::typed::<f32, f32, f32>,
            (F32, F16, F32) => Self::typed::<f32, f16, f32>,
            (F16, F32, F16) => Self::typed::<f16, f32, f16>,
            (F16, F16, F16) => Self::typed::<f16, f16, f16>,
            (F16, F16, F32) => Self::typed::<f16, f16, f32>,
            (Bf16, Bf16, F32) => Self::typed::<bf16, bf16, f32>,
            (Bf16, Bf16, Bf16) => Self::typed::<bf16, bf16, bf16>,
            other => panic!("no test has the types {other:?} yet"),
        };
        run(self, gpu, oracle).map_err(|e| format!("{oracle:?}: {e}\n  {self:?}"))
    }

    fn typed<Q: Element, KV: Element, O: Element>(&self, gpu: &Gpu, oracle: Oracle) -> Checked {
        let texts: Vec<Text<Q, KV>> =
            (0..self.shape.cache.batch).map(|b| self.text(b, oracle)).collect::<Result<_, _>>()?;
        let tensors: Vec<_> = texts.iter().map(|text| text.tensors.clone()).collect();
        let (session, outs) = self.run::<Q, KV, O>(gpu, &tensors)?;
        session.check_untouched()?;
        for (b, (mut text, (out, lse))) in texts.into_iter().zip(&outs).enumerate() {
            let (keys, values) = session.sequence::<KV>(b);
            let cache = &self.shape.cache;
            check_stored(cache, &text.tensors.k, &keys, cache.head_dim)
                .and_then(|()| match cache.value_start {
                    None => check_stored(cache, &text.tensors.v, &values, cache.value_dim),
                    // A part of keys is right where keys are.
                    Some(_) => Ok(()),
                })
                .map_err(|e| format!("sequence {b} is not in the cache as it was given: {e}"))?;
            // From here on they are what the cache holds.
            (text.tensors.k, text.tensors.v) = (keys, values);
            if let Some(gather) = &mut text.gather {
                gather.tensors = text.tensors.clone();
            }
            self.judge(&session, b, &text, Got::new(out).lse(&lse[..]), oracle)?;
        }
        Ok(())
    }

    /// A sequence's tensors: k and v in the types of the cache.
    fn text<Q: Element, KV: Element>(&self, b: usize, oracle: Oracle) -> Result<Text<Q, KV>, String> {
        let length = self.length(b);
        let attention = self.shape.of_sequence(length, length);
        let seed = self.seed + b as u64;
        let alone = |tensors: Tensors<Q, KV>| (tensors, None);
        let made = match oracle {
            Oracle::Bound(kind) => reference::random(&attention, kind, seed).map(alone),
            Oracle::Count => oracle::count_inputs(&attention, seed).map(alone),
            Oracle::Gather if length == 0 => reference::random(&attention, Kind::Normal, seed).map(alone),
            Oracle::Gather => oracle::gather_inputs(&attention, &self.shape.pattern(), seed)
                .map(|gather| (gather.tensors.clone(), Some(gather))),
        };
        let (mut tensors, gather) = made.map_err(|e| e.to_string())?;
        // New keys come in the type of q, and must be what the cache holds.
        for x in tensors.k.iter_mut().chain(&mut tensors.v) {
            let value: f64 = (*x).into();
            let narrow: f64 = Q::from_f64(value).into();
            *x = KV::from_f64(narrow);
        }
        share_values(&self.shape.cache, &mut tensors, oracle);
        Ok(Text { tensors, gather })
    }

    /// All steps: the outputs of each sequence, `[H, L, dv]`, and lse.
    #[allow(clippy::type_complexity)]
    pub(crate) fn run<Q: Element, KV: Element, O: Element>(
        &self,
        gpu: &Gpu,
        texts: &[Tensors<Q, KV>],
    ) -> Result<(Session, Vec<(Vec<O>, Vec<f32>)>), String> {
        let shape = &self.shape;
        let mut session =
            Session::new(gpu.kernels(), gpu.queue(), *shape, None).map_err(|e| e.to_string())?;
        let (heads, dim) = (shape.heads, shape.cache.value_dim);
        let mut outs: Vec<(Vec<O>, Vec<f32>)> = (0..texts.len())
            .map(|b| {
                let rows = heads * self.length(b);
                (vec![O::from_f64(f64::NAN); rows * dim], vec![f32::NAN; rows])
            })
            .collect();
        for counts in &self.steps {
            let from = session.cache.lengths().to_vec();
            session.feed(counts, texts);
            let step = session.step::<O>(counts)?;
            let strides = out_strides(shape);
            for (b, (out, lse)) in outs.iter_mut().enumerate() {
                let length = lse.len() / heads;
                // Rows behind those of a sequence are its own, or another's.
                let rows = if shape.packed { counts[b] } else { shape.new };
                for (head, t) in (0..heads * rows).map(|n| (n / rows, n % rows)) {
                    let [item, at] = session.place(b, t);
                    let row = &step.out[strides.at(item, head, at)..][..dim];
                    let row_lse = step.lse[(item * heads + head) * shape.new + at];
                    if t < counts[b] {
                        let at = head * length + from[b] + t;
                        out[at * dim..][..dim].copy_from_slice(row);
                        lse[at] = row_lse;
                    } else if row.iter().any(|&x| Into::<f64>::into(x) != 0.0) || row_lse != f32::MIN {
                        return Err(format!("sequence {b}: row {t} of {} is not empty", counts[b]));
                    }
                }
            }
        }
        Ok((session, outs))
    }

    fn judge<Q: Element, KV: Element, O: Element>(
        &self,
        session: &Session,
        b: usize,
        text: &Text<Q, KV>,
        got: Got<'_, O>,
        oracle: Oracle,
    ) -> Checked {
        let length = self.length(b);
        if length == 0 {
            return Ok(());
        }
        let (attention, pattern) = (self.shape.of_sequence(length, length), self.shape.pattern());
        let inputs = text.tensors.inputs();
        let rows = if length > 700 { Rows::Sample { count: 96, seed: 1 } } else { Rows::All };
        let splits = session.plan.splits();
        let order = |_: Position| walk(length, splits);
        let page = self.shape.cache.paging.map_or(128, |paging| paging.page.min(128));
        let tiles = |_: Position| length.div_ceil(page) + length.div_ceil(DecodeVariant::CHUNK);
        let report = match (oracle, &text.gather) {
            (Oracle::Count, _) => oracle::check_count(&attention, &inputs, &pattern, got, rows),
            (Oracle::Gather, Some(gather)) => {
                oracle::check_gather(&attention, gather, &pattern, got, rows, WeightFormat::F32)
            }
            _ => {
                let options = VerifyOptions::default().rows(rows).order(&order).tiles(&tiles);
                let report = reference::verify(&attention, &inputs, &pattern, got, options);
                if let Ok(report) = &report {
                    println!("decoding, {oracle:?}: worst error/bound {:.3}", report.ratio());
                }
                report
            }
        };
        sound(b, report.map_err(|e| e.to_string())?)
    }
}

/// Where values are a part of keys: the one tensor that serves the oracle. Counts ask for values, and for no keys.
pub(crate) fn share_values<Q, KV: Element>(cache: &CacheShape, tensors: &mut Tensors<Q, KV>, oracle: Oracle) {
    let Some(start) = cache.value_start else { return };
    let rows = tensors.k.chunks_mut(cache.head_dim).zip(tensors.v.chunks_mut(cache.value_dim));
    for (key, value) in rows {
        let part = &mut key[start..start + cache.value_dim];
        match oracle {
            Oracle::Count => part.copy_from_slice(value),
            _ => value.copy_from_slice(part),
        }
    }
}

fn sound(b: usize, report: Report) -> Checked {
    match report.pass && report.unspecified == 0 && report.rows_checked > 0 {
        true => Ok(()),
        false => Err(format!("sequence {b}: {report}")),
    }
}

/// A sequence, and what its queries address.
struct Text<Q, KV> {
    tensors: Tensors<Q, KV>,
    gather: Option<oracle::Gather<Q, KV>>,
}

/// Keys by the split that meets them: chunks are dealt out in turn.
fn walk(length: usize, splits: usize) -> Vec<Vec<u32>> {
    let chunk = DecodeVariant::CHUNK as u32;
    let keys = |split: usize| {
        (0..length as u32).filter(|key| (key / chunk) as usize % splits == split).collect::<Vec<_>>()
    };
    (0..splits).map(keys).filter(|keys| !keys.is_empty()).collect()
}

pub(crate) fn bits<E: Element>(x: &[E]) -> Vec<u64> {
    x.iter().map(|&x| Into::<f64>::into(x).to_bits()).collect()
}

fn all(case: &Case) {
    ORACLES.iter().for_each(|&oracle| case.check(oracle).unwrap_or_else(|e| panic!("{e}")));
}

/// Grouped heads, two sequences.
pub(crate) fn small() -> DecodeShape {
    DecodeShape::new(CacheShape::new(2, 2, 96, 16).value_dim(20), 6, 5)
}

#[test]
fn a_sequence_in_steps_is_the_whole_one() {
    all(&Case::new(small(), &[5, 5, 5]));
    // One plan for every number of new positions up to its own.
    all(&Case::new(small().counts(true), &[5, 1, 3, 0, 1, 5, 4]));
}

#[test]
fn sequences_of_different_lengths_share_a_step() {
    let shape = DecodeShape::new(CacheShape::new(3, 2, 64, 8), 4, 4).counts(true);
    let steps = vec![vec![4, 0, 1], vec![4, 0, 3], vec![0, 0, 4], vec![1, 0, 4], vec![2, 0, 0]];
    all(&Case { steps, ..Case::new(shape, &[]) });
    let paged = DecodeShape::new(shape.cache.paged(8, 9), 4, 4).counts(true);
    let steps = vec![vec![4, 0, 1], vec![4, 2, 3], vec![0, 0, 4], vec![1, 3, 4], vec![2, 0, 0]];
    all(&Case { steps, ..Case::new(paged, &[]) });
}

#[test]
fn every_size() {
    for (head_dim, value_dim) in [(1, 1), (7, 3), (16, 64), (64, 80), (80, 16), (128, 128), (256, 256)] {
        let cache = CacheShape::new(1, 1, 300, head_dim).value_dim(value_dim);
        let case = Case::new(DecodeShape::new(cache, 3, 4), &[4; 3]);
        case.check(Oracle::Bound(Kind::Normal)).unwrap_or_else(|e| panic!("{e}"));
        case.check(Oracle::Count).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn chunks_of_keys_and_their_borders() {
    // A prefill in pieces of 64, then tokens past 256 and 512 keys.
    let cache = CacheShape::new(1, 2, 1024, 16);
    let shape = DecodeShape::new(cache, 4, 64).counts(true);
    let steps = [64, 64, 64, 63, 1, 1, 1, 64, 64, 64, 62, 1, 1, 1, 30];
    all(&Case::new(shape, &steps));
    for splits in [1, 2, 4] {
        let gpu = gpu_with(Options::default().splits(splits));
        let case = Case::new(shape, &steps);
        for oracle in ORACLES {
            case.check_on(&gpu, oracle).unwrap_or_else(|e| panic!("{splits} splits: {e}"));
        }
    }
}

#[test]
fn every_kind_of_numbers() {
    let cache = CacheShape::new(1, 2, 700, 32);
    for kind in Kind::ALL {
        let case =
            Case::new(DecodeShape::new(cache, 4, 64).counts(true), &[64, 64, 64, 64, 1, 1, 64, 64, 50]);
        case.check(Oracle::Bound(kind)).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn every_storage() {
    for (input, storage, output) in
        [(F32, F16, F32), (F16, F16, F16), (F16, F16, F32), (Bf16, Bf16, F32), (Bf16, Bf16, Bf16)]
    {
        for (head_dim, page) in [(16, None), (7, Some(4)), (64, Some(16))] {
            let cache = CacheShape::new(2, 2, 64, head_dim).storage(storage);
            let cache = page.map_or(cache, |page| cache.paged(page, 30));
            let shape = DecodeShape::new(cache, 4, 3).input(input).output(output);
            let case = Case::new(shape, &[3; 7]);
            case.check(Oracle::Bound(Kind::Normal)).unwrap_or_else(|e| panic!("{e}"));
            case.check(Oracle::Count).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn pages_of_every_size() {
    for page in [1, 2, 8, 64, 256, 512] {
        let cache = CacheShape::new(2, 2, 512, 12).paged(page, 1024 / page);
        let shape = DecodeShape::new(cache, 4, 61).counts(true);
        all(&Case::new(shape, &[61, 3, 61, 61, 1, 61, 9, 61, 2]));
    }
}

#[test]
fn windows_and_sinks() {
    for (window, sinks) in [(0, 0), (3, 0), (3, 2), (20, 5), (300, 1), (299, 290), (usize::MAX, 4), (7, 1000)]
    {
        let cache = CacheShape::new(1, 2, 768, 12).paged(32, 24);
        let shape = DecodeShape::new(cache, 4, 40).counts(true).window(Some(window)).sinks(sinks);
        all(&Case::new(shape, &[40, 7, 40, 40, 40, 1, 40, 40, 40, 1, 40, 40, 40, 40, 40, 40, 40, 40]));
    }
}

#[test]
fn every_layout_and_scale() {
    let cache = CacheShape::new(2, 2, 64, 12).value_dim(8);
    let shape = DecodeShape::new(cache, 6, 3).scale(Some(0.4));
    // Packed [B, new, H d + Hkv d + Hkv dv], and an odd place.
    let row = 6 * 12 + 2 * 12 + 2 * 8;
    let packed = |offset, head| Layout::Strided(Strides::new(3 * row, head, row).offset(offset));
    let layouts = Layouts::all(Layout::Blhd).q(packed(0, 12)).k(packed(72, 12)).v(packed(96, 8));
    let odd = |head: isize, rows: isize| {
        Layout::Strided(Strides::new(rows * 3 * head, head, rows * head).offset(1))
    };
    for layouts in
        [Layouts::all(Layout::Blhd), layouts, Layouts::default().q(odd(13, 6)).k(odd(13, 2)).v(odd(9, 2))]
    {
        for oracle in [Oracle::Bound(Kind::Arange), Oracle::Gather] {
            let case = Case::new(shape.layouts(layouts), &[3; 5]);
            case.check(oracle).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn the_same_step_gives_the_same_bits_in_any_batch() {
    let cache = CacheShape::new(2, 2, 600, 16);
    let case = Case::new(DecodeShape::new(cache, 4, 64), &[64; 6]);
    let texts: Vec<Tensors<f32, f32>> = (0..2)
        .map(|b| reference::random(case.shape.of_sequence(384, 384), Kind::Normal, b).unwrap())
        .collect();
    let gpu = gpu_with(Options::default().splits(2).tile_kind(TileKind::Staged));
    let (_, first) = case.run::<f32, f32, f32>(&gpu, &texts).unwrap();
    let (_, again) = case.run::<f32, f32, f32>(&gpu, &texts).unwrap();
    assert!(first == again);
    let alone = |cache| Case::new(DecodeShape::new(cache, 4, 64), &[64; 6]);
    let cache = CacheShape::new(1, 2, 600, 16);
    for (text, wanted) in texts.iter().zip(&first) {
        let own =
            |case: Case| case.run::<f32, f32, f32>(&gpu, std::slice::from_ref(text)).unwrap().1.remove(0);
        assert!(own(alone(cache)) == *wanted);
        // Large pages change where rows lie, and nothing else.
        assert!(own(alone(CacheShape::new(1, 2, 512, 16).paged(128, 4))) == *wanted);
    }
}

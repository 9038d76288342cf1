//! Linformer: rows within their bounds, projections that are known exactly, gradients.

mod api;
mod golden;
pub(crate) mod gradients;

use half::{bf16, f16};
use wgpu_attention::reference::{self, Kind, Report, Rows};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Attention, AttentionShape, Counter, Element, Gpu, LinformerInputs, LinformerOptions, Options, Score,
    Storage,
};
use wgpu_attention_testing::{Placement, gpu, gpu_with};

/// One call's tensors.
#[derive(Debug, Clone)]
struct Call<E> {
    attention: Attention,
    options: LinformerOptions,
    q: Vec<E>,
    k: Vec<E>,
    v: Option<Vec<E>>,
    e: Vec<f32>,
    f: Option<Vec<f32>>,
    key_mask: Option<Vec<bool>>,
}

impl<E: Element> Call<E> {
    /// Random tensors, and a mask that hides about a quarter of the keys if the options ask for one.
    fn new(attention: impl Into<Attention>, options: LinformerOptions, kind: Kind, seed: u64) -> Self {
        let attention = attention.into().storage(Storage::all(E::TYPE));
        let tensors = reference::random::<E, E>(&attention, kind, seed).expect("a valid call");
        let [q, k, v] = [tensors.q.clone(), tensors.k.clone(), tensors.v.clone()];
        let draw = Counter::new(seed, 77);
        // So that projected rows are of the size of keys.
        let size = (attention.shape.kv_len as f64).sqrt().recip();
        let len = options.len_projection(&attention.shape) as u64;
        let matrix =
            |first: u64| (0..len).map(|n| (size * draw.normal(first + n)) as f32).collect::<Vec<_>>();
        let keys = (attention.shape.batch * attention.shape.kv_len) as u64;
        let mask = (0..keys).map(|n| Counter::new(seed, 78).below(n, 4) > 0).collect();
        Self {
            v: options.values.then_some(v),
            f: options.value_projection.then(|| matrix(len)),
            key_mask: options.key_mask.then_some(mask),
            e: matrix(0),
            attention,
            options,
            q,
            k,
        }
    }

    fn inputs(&self) -> LinformerInputs<'_, E> {
        LinformerInputs::new(&self.q, &self.k, &self.e)
            .v(self.v.as_deref())
            .f(self.f.as_deref())
            .key_mask(self.key_mask.as_deref())
    }

    fn run_on(&self, gpu: &Gpu) -> Result<Vec<E>, String> {
        let run = gpu.linformer(&self.attention, &self.options, &self.inputs());
        run.map_err(|e| format!("{:?}: {e}", self.options))
    }

    fn run(&self) -> Vec<E> {
        self.run_on(gpu()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn report(&self, got: &[E]) -> Report {
        reference::verify_linformer(&self.attention, &self.options, &self.inputs(), got, Rows::All, None)
            .expect("valid")
    }

    /// Every element within its bound, and something promised of each.
    fn check_on(&self, gpu: &Gpu) -> Result<Report, String> {
        let report = self.report(&self.run_on(gpu)?);
        match report.pass && report.unspecified == 0 {
            true => Ok(report),
            false => Err(format!("{report}\n{:?} {:?}", self.attention, self.options)),
        }
    }

    fn check(&self) -> Report {
        self.check_on(gpu()).unwrap_or_else(|e| panic!("{e}"))
    }
}

/// Grouped heads, fewer keys than E has rows, sizes that are no multiples of anything.
fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 37, 12).kv_heads(2).kv_len(70).value_dim(20)
}

fn options() -> LinformerOptions {
    LinformerOptions::new(90, 19)
}

/// Every option, under a name; keys that are the values have their size.
fn each() -> [(&'static str, AttentionShape, LinformerOptions); 6] {
    let same = shape().value_dim(12);
    [
        ("both", shape(), options()),
        ("per head", shape(), options().per_head(true)),
        ("one projection", shape(), options().value_projection(false)),
        ("keys are values", same, options().values(false)),
        ("one of each", same, options().values(false).value_projection(false).key_mask(true)),
        ("masked", shape(), options().per_head(true).key_mask(true)),
    ]
}

/// What mutants are looked for with.
pub(super) fn bound(gpu: &Gpu) -> Result<(), String> {
    each().into_iter().try_for_each(|(name, shape, options)| {
        let checked = Call::<f32>::new(shape, options, Kind::Normal, 5).check_on(gpu);
        checked.map(drop).map_err(|e| format!("{name}: {e}"))
    })
}

#[test]
fn every_option_is_within_its_bound() {
    let staged = gpu_with(Options::default().tile_kind(TileKind::Staged));
    for (name, shape, options) in each() {
        for kind in [Kind::Normal, Kind::Peaky, Kind::Offset, Kind::Rising, Kind::Tiny] {
            let call = Call::<f32>::new(shape, options, kind, 3);
            println!("{name}, {kind:?}: {}", call.check());
            call.check_on(&staged).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn sixteen_bits() {
    fn each_option<E: Element>() {
        for (name, shape, options) in each() {
            println!("{name}: {}", Call::<E>::new(shape, options, Kind::Normal, 2).check());
        }
    }
    each_option::<f16>();
    each_option::<bf16>();
}

#[test]
fn sizes_lengths_and_scales() {
    for (q_len, kv_len, projected, dim) in [
        (1, 1, 1, 1),
        (1, 130, 64, 8),
        (130, 1, 3, 7),
        (64, 64, 64, 64),
        (33, 257, 100, 16),
        (5, 300, 130, 80),
    ] {
        let shape = AttentionShape::new(1, 2, q_len, dim).kv_len(kv_len);
        for options in [LinformerOptions::new(kv_len, projected), LinformerOptions::new(512, projected)] {
            Call::<f32>::new(shape, options, Kind::Normal, 7).check();
        }
    }
    let scaled = shape().score(Score::new().scale(0.7));
    Call::<f32>::new(scaled, options(), Kind::Normal, 7).check();
}

/// One stride leads through batch and heads, or none does.
#[test]
fn layouts() {
    for placement in [Placement::Blhd, Placement::Gap(3), Placement::Gap(4), Placement::BlhdGap(1)] {
        for options in [options(), options().per_head(true).key_mask(true)] {
            Call::<f32>::new(placement.apply(shape()), options, Kind::Arange, 6).check();
            let one_head = placement.apply(shape().kv_heads(1));
            Call::<f32>::new(one_head, options, Kind::Arange, 6).check();
        }
    }
}

/// Queries of 0 weigh all projected rows alike; F and v are 0 or 1: out times kk is an integer, exactly known.
pub(super) fn counts(gpu: &Gpu) -> Result<(), String> {
    for options in [options().key_mask(true), options().per_head(true)] {
        let mut call = Call::<f32>::new(shape(), options, Kind::Normal, 4);
        let bit = |x: &mut f32| *x = f32::from(u8::from(*x > 0.0));
        call.q.fill(0.0);
        call.v.iter_mut().chain(&mut call.f).flatten().for_each(bit);
        let got = call.run_on(gpu)?;
        let (v, f) = (call.v.as_ref().expect("asked for"), call.f.as_ref().expect("asked for"));
        let shape = call.attention.shape;
        let (len, dv, kk) = (shape.kv_len, shape.value_dim, options.projected);
        for (n, got) in got.iter().enumerate() {
            let (c, row) = (n % dv, n / dv);
            let (batch, head) =
                (row / shape.q_len / shape.heads, shape.kv_head(row / shape.q_len % shape.heads));
            let own = if options.per_head { head * options.rows * kk } else { 0 };
            let counts = |j: &usize| call.key_mask.as_ref().is_none_or(|mask| mask[batch * len + j]);
            let of_key = |j: usize| {
                let ones = f[own + j * kk..][..kk].iter().sum::<f32>();
                v[((batch * shape.kv_heads + head) * len + j) * dv + c] * ones
            };
            let sum: f32 = (0..len).filter(counts).map(of_key).sum();
            // Also where it is not a number.
            let near = (got * kk as f32 - sum).abs() <= 0.25;
            if !near {
                return Err(format!(
                    "row {row}, column {c}: {} instead of {sum}, {options:?}",
                    got * kk as f32
                ));
            }
        }
    }
    Ok(())
}

/// E and F that each take one key per row: the attention over those keys, each addressed by a query of its own.
pub(super) fn gathered(gpu: &Gpu) -> Result<(), String> {
    let (len, kk) = (40, 16);
    let shape = AttentionShape::new(1, 2, kk, 64).kv_len(len);
    let mut call = Call::<f32>::new(shape, LinformerOptions::new(len, kk).per_head(true), Kind::Normal, 8);
    let taken = |head: usize, r: usize| (r * 7 + 11 * head + 3) % len;
    let code =
        |j: usize, c: usize| if Counter::new(j as u64, 5).below(c as u64, 2) == 0 { 1.0 } else { -1.0 };
    let f = call.f.as_mut().expect("asked for");
    call.e.fill(0.0);
    f.fill(0.0);
    for (head, r) in (0..2 * kk).map(|n| (n / kk, n % kk)) {
        call.e[(head * len + taken(head, r)) * kk + r] = 1.0;
        f[(head * len + taken(head, r)) * kk + r] = 1.0;
        let row = &mut call.q[(head * kk + r) * 64..][..64];
        row.iter_mut().enumerate().for_each(|(c, q)| *q = 16.0 * code(taken(head, r), c));
    }
    let of_key = |n: usize| code(n / 64 % len, n % 64);
    call.k.iter_mut().enumerate().for_each(|(n, k)| *k = of_key(n));
    let got = call.run_on(gpu)?;
    let v = call.v.as_ref().expect("asked for");
    for (n, got) in got.iter().enumerate() {
        let (head, r, c) = (n / 64 / kk, n / 64 % kk, n % 64);
        let want = v[(head * len + taken(head, r)) * 64 + c];
        let near = (got - want).abs() <= 1e-5;
        if !near {
            return Err(format!("head {head}, row {r}, column {c}: {got} instead of {want}"));
        }
    }
    Ok(())
}

#[test]
fn projections_count_every_key_once() {
    counts(gpu()).unwrap();
}

#[test]
fn every_key_is_reached_alone() {
    gathered(gpu()).unwrap();
}

/// Values of masked keys, and rows of E behind the last key, may be anything.
pub(super) fn strange(gpu: &Gpu) -> Result<(), String> {
    for per_head in [false, true] {
        let mut call =
            Call::<f32>::new(shape(), options().key_mask(true).per_head(per_head), Kind::Normal, 9);
        let first = call.run_on(gpu)?;
        let mask = call.key_mask.clone().expect("asked for");
        let hidden = |n: usize, dim: usize| !mask[n / dim / 70 / 2 * 70 + n / dim % 70];
        call.k.iter_mut().enumerate().filter(|(n, _)| hidden(*n, 12)).for_each(|(_, k)| *k = f32::NAN);
        let v = call.v.as_mut().expect("asked for");
        v.iter_mut().enumerate().filter(|(n, _)| hidden(*n, 20)).for_each(|(_, v)| *v = f32::INFINITY);
        let behind = |(n, _): &(usize, &mut f32)| n / 19 % 90 >= 70;
        let matrices = call.e.iter_mut().enumerate().chain(call.f.iter_mut().flatten().enumerate());
        matrices.filter(behind).for_each(|(_, x)| *x = f32::NAN);
        if call.run_on(gpu)? != first {
            return Err(format!("what must not matter does, per head {per_head}"));
        }
    }
    Ok(())
}

#[test]
fn masked_keys_and_rows_behind_the_last_do_not_matter() {
    strange(gpu()).unwrap();
}

#[test]
fn repeats_are_equal_bit_for_bit() {
    let call = Call::<f32>::new(shape(), options().key_mask(true), Kind::Peaky, 5);
    let first = call.run();
    assert!((0..3).all(|_| call.run() == first));
}

/// E that is the identity: plain attention.
#[test]
fn the_reference_is_attention_where_nothing_is_projected() {
    let shape = AttentionShape::new(1, 2, 9, 8).kv_len(11);
    let options = LinformerOptions::new(11, 11).value_projection(false);
    let mut call = Call::<f32>::new(shape, options, Kind::Normal, 5);
    call.e = (0..121).map(|n| f32::from(u8::from(n / 11 == n % 11))).collect();
    let v = call.v.as_ref().expect("asked for");
    let plain = reference::attention(shape, &call.q, &call.k, v, &wgpu_attention::Full).unwrap();
    let got = reference::linformer(shape, &options, &call.inputs()).unwrap();
    assert!(got.iter().zip(&plain.out).all(|(a, b)| (a - b).abs() < 1e-12));
    call.check();
}

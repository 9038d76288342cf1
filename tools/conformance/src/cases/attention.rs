//! Cases of the blocked kernel and of what merges its parts: the bound, count and gather tests of `tests/kernels`, for each
//! kind of tile.

use anyhow::{Error, Result, ensure};
use wgpu_attention::ElementType::{self, Bf16, F16, F32};
use wgpu_attention::reference::{
    Got, Kind, Position, Report, Rows, VerifyOptions, WeightFormat, oracle, verify,
};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Alibi, AttentionShape, BiasStrides, Causal, Element, Full, Heads, Inputs, KernelPath, Options, Parts,
    Score, Slopes, Storage, Temperature,
};
use wgpu_attention_testing::{BiasValues, Bound, Case, Cut, PATTERNS, Placement, cut, picked};

use crate::bench::Bench;
use crate::cases::{self, Set};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Check {
    /// Random inputs: every element within its bound.
    Bound,
    /// q = 0: out tells exactly which keys were attended.
    Count,
    /// Each query addresses one key, far ahead of all others.
    Gather,
}

/// The kinds of tile of the scalar path; the cooperative path has cases of its own.
const KINDS: [TileKind; 2] = [TileKind::Staged, TileKind::Direct];

const COOPERATIVE: &str = "attention, cooperative";

fn row_of(kind: TileKind) -> &'static str {
    match kind {
        TileKind::Staged => "attention, staged",
        TileKind::Direct => "attention, direct",
        TileKind::Cooperative(_) => COOPERATIVE,
    }
}

/// All of them.
pub(crate) fn cases() -> Vec<cases::Case> {
    let mut list = Vec::new();
    for kind in KINDS {
        let mut of_kind =
            List { row: row_of(kind), options: Options::default().tile_kind(kind), list: &mut list };
        of_kind.sizes();
        of_kind.terms();
        of_kind.heads();
        of_kind.sets();
        of_kind.placements();
        List { row: "attention, merging parts", ..of_kind }.merges(kind);
    }
    let options = Options::default().path(KernelPath::Cooperative);
    List { row: COOPERATIVE, options, list: &mut list }.cooperative();
    // The tile and the path that the plan itself chooses.
    List { row: "attention, as planned", options: Options::default(), list: &mut list }.planned();
    list
}

/// Cases of one row of the table.
struct List<'a> {
    row: &'static str,
    options: Options,
    list: &'a mut Vec<cases::Case>,
}

impl List<'_> {
    /// Head and value sizes, element types, inputs.
    fn sizes(&mut self) {
        let few = AttentionShape::new(1, 1, 9, 8).kv_len(37);
        self.add_to(Set::Tiny, Check::Bound, "9 queries, causal".into(), Case::new(few).pattern(Causal));
        for element in [F32, F16, Bf16] {
            for (d, dv) in [(64, 64), (7, 5), (80, 33), (128, 128), (256, 256)] {
                let shape = AttentionShape::new(1, 2, 130, d).kv_heads(1).kv_len(141).value_dim(dv);
                let case = Case::new(shape.storage(Storage::all(element))).pattern(Causal);
                for kind in Kind::ALL {
                    let small =
                        (d, kind) == (64, Kind::Peaky) || (d, kind) == (7, Kind::Normal) && element != Bf16;
                    let name = format!("d {d}, dv {dv}, causal, {kind:?}");
                    self.add(Check::Bound, small, name, case.clone().kind(kind));
                }
            }
        }
        for (element, d, dv) in [(F32, 576, 512), (F16, 576, 512), (Bf16, 257, 300)] {
            let latent = AttentionShape::new(1, 4, 40, d).kv_heads(1).kv_len(141).value_dim(dv);
            let case = Case::new(latent.storage(Storage::all(element))).pattern(Causal);
            self.add(Check::Bound, element == F32, format!("d {d}, dv {dv}, {element}, causal"), case);
        }
        let mixed = AttentionShape::new(2, 2, 70, 16);
        for (input, output) in [(F32, F16), (F16, F32), (Bf16, F32)] {
            let case = Case::new(mixed.storage(Storage::all(input).out(output)));
            self.add(Check::Bound, false, format!("out {output}"), case);
        }
        for kv in [F16, Bf16] {
            let case = Case::new(mixed.storage(Storage::all(F32).kv(kv)));
            self.add(Check::Bound, kv == F16, format!("keys and values {kv}"), case);
        }
        let long = Case::new(AttentionShape::new(1, 1, 4097, 16)).pattern(Causal).kind(Kind::Rising);
        let rows = Rows::Sample { count: 32, seed: 3 };
        self.add(Check::Bound, false, "4,097 keys".into(), long.rows(rows));
        let wide = AttentionShape::new(66, 1000, 1, 4).kv_heads(1).kv_len(3);
        let rows = Rows::Sample { count: 1000, seed: 5 };
        self.add(Check::Bound, false, "66,000 workgroups".into(), Case::new(wide).rows(rows));
    }

    /// Terms of the score.
    fn terms(&mut self) {
        let shape = AttentionShape::new(2, 2, 70, 16);
        let of = |score: Score| Case::new(shape.score(score));
        let biased = |score: Score| of(score.bias(BiasStrides::broadcast([2, 1, 70, 70])));
        let all = biased(Score::new().softcap(30.0).alibi()).bias(BiasValues::Holes);
        self.add(Check::Bound, true, "softcap, bias, ALiBi".into(), all);
        self.add(Check::Bound, false, "softcap".into(), of(Score::new().softcap(2.0)));
        self.add(Check::Bound, false, "ALiBi".into(), of(Score::new().alibi()).pattern(Causal));
        let symmetric = Alibi::new(Slopes::Given).symmetric(true);
        self.add(Check::Bound, false, "ALiBi, symmetric".into(), of(Score::new().with(symmetric)));
        self.add(Check::Bound, true, "temperature".into(), of(Score::new().with(Temperature)));
        for bias in [BiasValues::Holes, BiasValues::Floors] {
            self.add(Check::Bound, false, format!("bias {bias:?}"), biased(Score::new()).bias(bias));
        }
    }

    /// Some of the heads: no byte of the others is written.
    fn heads(&mut self) {
        let shape = AttentionShape::new(2, 6, 70, 16).kv_heads(3);
        let some = shape.heads(Heads::only(&[1, 4, 5]));
        let case = Case::new(some).pattern(picked("blocks_per_head", &shape.extent(), 1));
        self.add(Check::Bound, true, "heads 1, 4 and 5 of 6".into(), case.clone());
        self.add(Check::Count, false, "count, heads 1, 4 and 5 of 6".into(), case.clone());
        let slopes = case.score(Score::new().with(Alibi::new(Slopes::Given)));
        self.add(Check::Bound, false, "ALiBi, heads 1, 4 and 5 of 6".into(), slopes);
    }

    /// The exact set of keys, for every pattern.
    fn sets(&mut self) {
        let shape = AttentionShape::new(2, 3, 100, 16).kv_len(117);
        for (name, _) in PATTERNS {
            let case = Case::new(shape).pattern(picked(name, &shape.extent(), 1));
            let small = ["causal", "bigbird", "longformer", "mask_of_all"].contains(name);
            self.add(Check::Count, small, format!("count, {name}"), case.clone());
            self.add(Check::Gather, small, format!("gather, {name}"), case);
        }
    }

    /// Layouts.
    fn placements(&mut self) {
        let shape = AttentionShape::new(2, 2, 70, 16);
        for placement in [Placement::Blhd, Placement::PackedQkv, Placement::Gap(3), Placement::SharedKv] {
            let case = Case::new(placement.apply(shape)).pattern(Causal);
            self.add(Check::Bound, false, format!("{placement:?}"), case);
        }
    }

    /// Several parts, merged in place, and the merging kernel.
    fn merges(&mut self, kind: TileKind) {
        let few = AttentionShape::new(1, 1, 9, 8).kv_len(37).storage(Storage::all(F16));
        let case = Case { options: self.options, ..Case::new(few).pattern(Causal) };
        let parts = cut(&case, Cut::Keys, 1);
        let name = format!("{kind:?}, 9 queries, causal, two parts");
        self.push(Set::Tiny, F16, name, move |bench| run(bench, Check::Bound, &case, &parts));
        for element in [F32, F16, Bf16] {
            let shape = AttentionShape::new(1, 2, 70, 16).kv_len(90);
            let stored = shape.storage(Storage::all(element));
            let case = Case::new(stored).pattern(picked("window", &shape.extent(), 1));
            for how in Cut::ALL {
                let small = how == Cut::Gathers || how == Cut::Pairs && element == F32;
                for check in [Check::Bound, Check::Count, Check::Gather] {
                    let name = format!("{kind:?} {how:?}, {check:?}");
                    let case = Case { options: self.options, ..case.clone() };
                    let parts = cut(&case, how, 1);
                    self.push(Set::small_if(small), element, name, move |bench| {
                        run(bench, check, &case, &parts)
                    });
                }
            }
        }
    }

    /// f16 inputs on matrix units: bound, sets, terms, parts.
    fn cooperative(&mut self) {
        let halves = Storage::all(F16);
        let shape = AttentionShape::new(2, 2, 70, 64).kv_len(150);
        let causal = Case::new(shape.storage(halves)).pattern(Causal);
        for (kind, set) in [(Kind::Normal, Set::Tiny), (Kind::Peaky, Set::Full), (Kind::Rising, Set::Full)] {
            self.add_to(set, Check::Bound, format!("d 64, causal, {kind:?}"), causal.clone().kind(kind));
        }
        let wide = AttentionShape::new(1, 2, 70, 40).kv_len(99).value_dim(128).storage(halves);
        self.add(Check::Bound, false, "d 40, dv 128".into(), Case::new(wide));
        let score = Score::new().bias(BiasStrides::broadcast([2, 1, 70, 150])).softcap(30.0).alibi();
        let biased = Case::new(shape.storage(halves).score(score)).bias(BiasValues::Holes);
        self.add(Check::Bound, false, "softcap, bias, ALiBi".into(), biased);
        for name in ["causal", "bigbird", "longformer", "mask_of_all"] {
            let case = Case::new(shape.storage(halves.out(F32))).pattern(picked(name, &shape.extent(), 1));
            self.add(Check::Count, name == "bigbird", format!("count, {name}"), case.clone());
            self.add(Check::Gather, name == "bigbird", format!("gather, {name}"), case);
        }
        let case = Case { options: self.options, ..causal };
        let parts = cut(&case, Cut::Gathers, 1);
        self.push(Set::small_if(false), F16, "two parts".into(), move |bench| {
            run(bench, Check::Bound, &case, &parts)
        });
    }

    /// Shapes for which a plan may choose something particular.
    fn planned(&mut self) {
        let few = AttentionShape::new(1, 1, 1, 8).kv_len(70);
        self.add_to(Set::Tiny, Check::Bound, "one query, few keys".into(), Case::new(few));
        for element in [F32, F16, Bf16] {
            let storage = Storage::all(element);
            let dense = AttentionShape::new(1, 2, 100, 64).storage(storage);
            self.add(Check::Bound, true, "d 64, causal".into(), Case::new(dense).pattern(Causal));
            let decode = AttentionShape::new(2, 4, 1, 64).kv_heads(2).kv_len(700);
            let decode = Case::new(decode.storage(storage));
            for (pattern, case) in
                [("full", decode.clone().pattern(Full)), ("causal", decode.clone().pattern(Causal))]
            {
                self.add(Check::Bound, pattern == "full", format!("one query, {pattern}"), case.clone());
                self.add(Check::Gather, false, format!("one query, {pattern}, gather"), case);
            }
        }
    }

    /// A case in one part.
    fn add(&mut self, check: Check, small: bool, name: String, case: Case) {
        self.add_to(Set::small_if(small), check, name, case);
    }

    fn add_to(&mut self, set: Set, check: Check, name: String, case: Case) {
        let case = Case { options: self.options, ..case };
        self.push(set, case.attention.storage.q, name, move |bench| run(bench, check, &case, &case.parts()));
    }

    fn push(
        &mut self,
        set: Set,
        element: ElementType,
        name: String,
        run: impl Fn(&Bench) -> Result<f64> + 'static,
    ) {
        self.list.push(cases::Case { kernel: self.row, element, name, set, run: Box::new(run) });
    }
}

/// Computes a case and looks at it.
fn run(bench: &Bench, check: Check, case: &Case, parts: &Parts) -> Result<f64> {
    wgpu_attention_testing::typed!(case.attention.storage, of_types(bench, check, case, parts))
}

fn of_types<Q: Element, KV: Element, O: Element>(
    bench: &Bench,
    check: Check,
    case: &Case,
    parts: &Parts,
) -> Result<f64> {
    if case.options.tile_kind == Some(TileKind::Direct) {
        bench.compiles_direct_tiles()?;
    }
    let path = case.options.path.unwrap_or(KernelPath::Scalar);
    if path == KernelPath::Cooperative {
        bench.has_matrices()?;
    }
    let weights = WeightFormat::of(path);
    let (attention, pattern) = (&case.attention, case.pattern.as_dyn());
    let report = match check {
        Check::Bound => {
            let tensors = case.tensors::<Q, KV>();
            let got = Computed::<O>::of(bench, case, &tensors.inputs(), parts)?;
            let order = |at: Position| parts.key_order(at.batch, at.head, at.i);
            let tiles = |at: Position| parts.key_tiles(at.batch, at.head, at.i);
            let options =
                VerifyOptions::default().rows(case.rows).order(&order).tiles(&tiles).weights(weights);
            verify(attention, &tensors.inputs(), pattern, got.view(), options)?
        }
        Check::Count => {
            let tensors = oracle::count_inputs::<Q, KV>(attention, case.seed)?;
            let got = Computed::<O>::of(bench, case, &tensors.inputs(), parts)?;
            oracle::check_count(attention, &tensors.inputs(), pattern, got.view(), case.rows)?
        }
        Check::Gather => {
            let gather = oracle::gather_inputs::<Q, KV>(attention, pattern, case.seed)?;
            let got = Computed::<O>::of(bench, case, &gather.tensors.inputs(), parts)?;
            oracle::check_gather(attention, &gather, pattern, got.view(), case.rows, weights)?
        }
    };
    judged(&report, case)
}

/// What a kernel wrote.
struct Computed<O> {
    out: Vec<O>,
    lse: Option<Vec<f32>>,
}

impl<O: Element> Computed<O> {
    fn of<Q: Element, KV: Element>(
        bench: &Bench,
        case: &Case,
        inputs: &Inputs<'_, Q, KV>,
        parts: &Parts,
    ) -> Result<Self> {
        let gpu = bench.with(case.options)?;
        let bound = Bound::new::<Q, KV, O>(&gpu, &case.attention, inputs, parts, case.lse);
        let written: Vec<_> = bound.written().iter().map(|tensor| &tensor.buffer).collect();
        let bytes = bench.run(|encoder| bound.call.encode(encoder), &written)?;
        let outcome = bound.take(&bytes).map_err(Error::msg)?;
        Ok(Self { out: outcome.out, lse: outcome.lse })
    }

    fn view(&self) -> Got<'_, O> {
        Got::new(&self.out).lse(self.lse.as_deref())
    }
}

/// The worst error / bound of a report that passed.
fn judged(report: &Report, case: &Case) -> Result<f64> {
    ensure!(report.pass && report.rows_checked > 0 && report.unspecified == 0, "{report}; {case}");
    // Under huge biases rounding alone moves a score by many nats: the share of that bound says nothing of precision.
    let tells = case.bias_strides().is_none() || case.bias != BiasValues::Floors;
    let both = [report.worst_out, report.worst_lse].into_iter().flatten().filter(|_| tells);
    Ok(both.map(|worst| worst.ratio).fold(0.0, f64::max))
}

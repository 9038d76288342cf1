//! Faults planted in the shader text: the checks must find them.

use crate::counts::{self, Of};
use crate::dropout;
use crate::gradients::close_on;
use crate::relations::{holes, nothing_leaks, strange_values_show};
use crate::relative::relative_on;
use crate::support::{BiasValues, Case, Cut, cut, gpu, picked};
use crate::tensors;
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Alibi, AttentionShape, BiasStrides, Causal, ElementType, Gpu, Options, Relative, Score, Segments, Sinks,
    Slopes, Storage, Temperature, Term,
};
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../mutants/table/backward.rs"]
mod table;

const SUITE: Suite<Gpu> = Suite {
    mutants: table::MUTANTS,
    subject,
    checks: &[
        ("formula", |gpu| {
            close_on(gpu, &case(), &case().parts())?;
            let drawn = case().pattern(picked("blocks_per_head", &shape().extent(), 3)).kind(Kind::Peaky);
            close_on(gpu, &drawn, &drawn.parts())
        }),
        ("parts", |gpu| close_on(gpu, &case(), &cut(&case(), Cut::Gathers, 1))),
        ("parts in 16 bits", |gpu| {
            let case = case().storage(Storage::all(ElementType::F16));
            close_on(gpu, &case, &cut(&case, Cut::Gathers, 1))
        }),
        ("terms", |gpu| scored(gpu, Score::new().softcap(2.0), BiasValues::Normal)),
        ("temperature", |gpu| scored(gpu, Score::new().with(Temperature), BiasValues::Normal)),
        ("relative", relative_on),
        ("bias", |gpu| {
            let all = tensors::biases();
            [all[0], all[5]].iter().try_for_each(|strides| {
                let bias = case().score(Score::new().bias(*strides));
                tensors::tensors_on(gpu, &bias, &bias.parts())
            })
        }),
        ("slopes", |gpu| {
            let slopes = tensors::scored(Alibi::new(Slopes::Given));
            tensors::tensors_on(gpu, &slopes, &slopes.parts())
        }),
        ("sinks", |gpu| {
            let sinks = tensors::scored(Sinks);
            tensors::tensors_on(gpu, &sinks, &sinks.parts())
        }),
        ("segments", |gpu| scored(gpu, Score::new().with(Segments), BiasValues::Normal)),
        ("segments' tensor", |gpu| {
            let segments = tensors::scored(Segments);
            tensors::tensors_on(gpu, &segments, &segments.parts())
        }),
        ("tensor under others", |gpu| {
            let capped = case().score(Score::new().softcap(2.0).with(Temperature));
            tensors::tensors_on(gpu, &capped, &capped.parts())
        }),
        ("vectors", |gpu| {
            let case = tensors::scored(Relative::new(149, 220).u(true).w(true));
            tensors::tensors_on(gpu, &case, &case.parts())
        }),
        ("removed", |gpu| {
            let bias = Score::new().bias(BiasStrides::broadcast([2, 4, 70, 150]));
            scored(gpu, bias, BiasValues::Holes)
        }),
        ("dropout", |gpu| {
            let dropped = case().score(Score::new().dropout(0.4, 17));
            close_on(gpu, &dropped, &dropped.parts()).and(close_on(&staged(gpu), &dropped, &dropped.parts()))
        }),
        ("dropout by pairs", dropout::pairs_on),
        ("dropout by tensors", dropout::tensors_close),
        ("strange dropout", dropout::strange_on),
        ("count dq", |gpu| count(gpu, Score::new().scale(0.5), Of::Dq)),
        ("count dk", |gpu| count(gpu, Score::new().scale(0.5), Of::Dk)),
        ("count dv", |gpu| count(gpu, Score::new().scale(0.5), Of::Dv)),
        ("huge bias", |gpu| count(gpu, counts::biased(), Of::Dv)),
        ("leaks", |gpu| nothing_leaks(gpu, &holes(), &holes().parts())),
        ("strange", strange_values_show),
        ("staged", |gpu| close_on(&staged(gpu), &case(), &case().parts())),
        ("wide", |gpu| {
            let shape = AttentionShape::new(1, 2, 30, 150).kv_heads(1).kv_len(40).value_dim(8);
            let case = Case::new(shape).pattern(Causal);
            close_on(&staged(gpu), &case, &case.parts())
        }),
        ("leaks of rows", tensors::nothing_leaks),
        ("staged leaks of rows", |gpu| tensors::nothing_leaks(&staged(gpu))),
        ("staged relative", |gpu| relative_on(&staged(gpu))),
        ("staged segments", |gpu| scored(&staged(gpu), Score::new().with(Segments), BiasValues::Normal)),
        ("staged tensors", |gpu| {
            let terms = [Term::from(Alibi::new(Slopes::Given)), Segments.into()];
            terms.into_iter().try_for_each(|term| {
                let case = tensors::scored(term);
                tensors::tensors_on(&staged(gpu), &case, &case.parts())
            })
        }),
        ("staged leaks", |gpu| nothing_leaks(&staged(gpu), &holes(), &holes().parts())),
        ("state", |gpu| {
            let options = gpu.kernels().options().splits(3);
            let gpu = gpu.with_kernels(gpu.kernels().with_options(options).expect("valid options"));
            close_on(&gpu, &case(), &case().parts())
        }),
    ],
};

fn subject(edit: Edit) -> Gpu {
    // What the fault leaves as it is, the tests beside these have compiled.
    let kernels = gpu().kernels().with_options(Options::default().splits(1)).expect("valid options");
    gpu().with_kernels(kernels.edited(move |text| edit(text)))
}

/// The same shaders, cut for GPUs.
fn staged(gpu: &Gpu) -> Gpu {
    let options = gpu.kernels().options().tile_kind(TileKind::Staged);
    gpu.with_kernels(gpu.kernels().with_options(options).expect("valid options"))
}

/// Grouped heads, several tiles and blocks each way, short last blocks.
fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 16).kv_heads(2).kv_len(150).value_dim(8)
}

fn case() -> Case {
    Case::new(shape()).pattern(Causal)
}

fn scored(gpu: &Gpu, score: Score, values: BiasValues) -> Result<(), String> {
    let case = case().score(score).bias(values);
    close_on(gpu, &case, &case.parts())
}

fn count(gpu: &Gpu, score: Score, of: Of) -> Result<(), String> {
    let pattern = picked("blocks_per_head", &counts::shape().extent(), 3);
    let case = Case::new(counts::shape().score(score)).pattern(pattern);
    counts::count_on(gpu, &case, &case.parts(), of)
}

#[test]
fn the_checks_pass_on_the_shaders_as_they_are() {
    SUITE.pass_without_faults();
}

#[test]
fn the_checks_kill_the_mutants() {
    SUITE.kill_the_mutants();
}

use crate::strange;
use crate::support::{
    BiasValues, Case, Cut, Draw, Picked, Placement, bound_of_parts, bound_on, cooperative, count_of_parts,
    count_on, cut, failed, gather_of_parts, gather_on, gpu, has_subgroups, picked, run, stale_scratch,
    weights_on,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::{DirectTile, MatrixSums, StagedTile, Tile};
use wgpu_attention::{
    Attention, AttentionShape, Bias, BiasStrides, Buckets, Causal, ElementType, Full, Gpu, KernelPath,
    Options, PairPredicate, Parts, Permutation, Relative, Score, Segments, Sinks, Storage, Temperature,
    WeightsOptions, Window,
};
use wgpu_attention_testing::mutants::{Check, Edit};

/// Several tiles of keys and of rows a block, several chunks of a head, several pieces of v, whatever the device.
const TILE: Tile = Tile::Staged(BASE);

const BASE: StagedTile = StagedTile {
    lanes_r: 4,
    lanes_c: 8,
    narrow: false,
    wide: false,
    far: false,
    tall: false,
    chunk: 4,
    v_keys: 16,
    q_resident: false,
    by_subgroup: false,
};

/// Queries stay in workgroup memory, and outputs are wide. A row's 16 lanes are more than a software adapter runs in step.
const RESIDENT: Tile =
    Tile::Staged(StagedTile { lanes_c: 16, wide: true, v_keys: 8, q_resident: true, ..BASE });

/// Lanes hold 8 keys; what they compare lies where values will.
const FAR: Tile = Tile::Staged(StagedTile { far: true, v_keys: 4, ..BASE });

/// Lanes hold 8 queries, and 8 keys.
const TALL: Tile = Tile::Staged(StagedTile { lanes_r: 2, far: true, tall: true, v_keys: 8, ..BASE });

/// Lanes hold 4 columns; those of a subgroup share their queries, where the device has subgroups of at most 16.
const NARROW: StagedTile = StagedTile { lanes_c: 16, narrow: true, by_subgroup: true, ..BASE };

/// Each lane for itself; several row tiles a block.
const DIRECT: Tile = Tile::Direct(DirectTile { lanes: 4 });

/// Kernels to be examined, under each tile.
pub(crate) struct Subject {
    small: Gpu,
    resident: Gpu,
    far: Gpu,
    tall: Gpu,
    narrow: Gpu,
    direct: Gpu,
    split: Gpu,
    matrix: Gpu,
    lanes: Gpu,
}

impl Subject {
    pub(crate) fn new(edit: Edit) -> Self {
        let edited = |gpu: &Gpu| {
            let edit = edit.clone();
            gpu.with_kernels(gpu.kernels().edited(move |text| edit(text)))
        };
        let edited_gpu = edited(gpu());
        let with = |options| {
            let kernels = edited_gpu.kernels().with_options(options);
            edited_gpu.with_kernels(kernels.expect("valid options"))
        };
        let tile = |tile| with(Options::default().tile(tile).splits(1));
        let split = with(Options::default().tile(TILE).splits(3));
        let options = Options::default().path(KernelPath::Cooperative);
        let matrix = edited(&cooperative(options));
        let lanes = edited(&cooperative(options.matrix_sums(MatrixSums::Lanes)));
        Self {
            small: tile(TILE),
            resident: tile(RESIDENT),
            far: tile(FAR),
            tall: tile(TALL),
            narrow: tile(Tile::Staged(StagedTile { by_subgroup: has_subgroups(), ..NARROW })),
            direct: tile(DIRECT),
            split,
            matrix,
            lanes,
        }
    }
}

/// By name.
pub(crate) const CHECKS: &[(&str, Check<Subject>)] = &[
    ("bound", |s| plain().iter().try_for_each(|case| bound_on(&s.small, case).map(drop))),
    ("count", |s| plain().iter().try_for_each(|case| count_on(&s.small, case).map(drop))),
    ("gather", |s| plain().iter().try_for_each(|case| gather_on(&s.small, case).map(drop))),
    ("steep", |s| bound_on(&s.small, &case(scored(Score::new().scale(30.0)), Causal)).map(drop)),
    ("strange", strange_inputs),
    ("strange terms", |s| strange::in_terms(&s.small, &Case { lse: true, ..case(shape(), Full) })),
    ("weights", |s| {
        let causal = Case::new(AttentionShape::new(1, 4, 70, 16).kv_heads(2).kv_len(300)).pattern(Causal);
        // All scores are equal.
        let equal = causal.clone().kind(Kind::Tiny);
        let options = WeightsOptions::default().top(7);
        weights_on(&s.small, &causal, &causal.parts(), options)?;
        weights_on(&s.small, &equal, &equal.parts(), options)?;
        Cut::ALL.into_iter().try_for_each(|how| weights_on(&s.small, &causal, &cut(&causal, how, 1), options))
    }),
    ("lse", |s| {
        lse().iter().try_for_each(|case| count_on(&s.small, case).and(bound_on(&s.small, case)).map(drop))
    }),
    ("terms", |s| terms().iter().try_for_each(|case| bound_on(&s.small, case).map(drop))),
    ("two biases", |s| {
        let both = Score::new().with(Bias::second(BiasStrides::toeplitz(70, 150)));
        bound_on(&s.small, &case(biased(scored(both)), Full)).map(drop)
    }),
    ("temperature", |s| {
        let tempered = scored(Score::new().with(Temperature));
        bound_on(&s.small, &case(tempered, Causal).kind(Kind::Peaky)).map(drop)
    }),
    ("buckets", |s| {
        let bucketed = scored(Score::new().scale(1.0).with(Buckets::new(32, 128).bidirectional(true)));
        bound_on(&s.small, &case(bucketed, Full)).map(drop)
    }),
    ("relative", |s| relative().iter().try_for_each(|case| bound_on(&s.small, case).map(drop))),
    ("segments", segments),
    ("relative ring", |s| {
        let [causal, full] = relative();
        // The full blocks come first, then the keys before them.
        let near = Case { pattern: Window { before: 70, after: 9 }.into(), ..causal.clone() }.blocks(16, 16);
        [causal, full, near].iter().try_for_each(|case| bound_on(&s.direct, case).map(drop))
    }),
    ("sinks", |s| {
        let of_rows = case(scored(Score::new().with(Sinks)), Causal);
        let few = Case::new(packed()[0].attention.clone().score(Score::new().with(Sinks)));
        for case in [&of_rows, &few] {
            count_on(&s.small, case).and(bound_on(&s.small, case))?;
        }
        bound_of_parts(&s.small, &of_rows, &cut(&of_rows, Cut::Gathers, 1))?;
        bound_on(&s.split, &few).and(bound_on(&s.direct, &of_rows)).map(drop)
    }),
    ("dropout", |s| {
        let (of_rows, few) = dropout();
        count_on(&s.small, &of_rows).and(gather_on(&s.small, &of_rows)).and(count_on(&s.small, &few))?;
        bound_of_parts(&s.small, &of_rows, &cut(&of_rows, Cut::Gathers, 1)).map(drop)
    }),
    ("direct dropout", |s| count_on(&s.direct, &dropout().0).map(drop)),
    ("removed", |s| removed().iter().try_for_each(|case| count_on(&s.small, case).map(drop))),
    ("gathered terms", |s| {
        let case = case(biased(shape()), Full);
        bound_of_parts(&s.small, &case, &cut(&case, Cut::Gathers, 1)).map(drop)
    }),
    ("parts", parts),
    ("permutation", permutation),
    ("f16 parts", |s| {
        cuts(&s.small, &case(odd(Storage::default().out(F16)), Window { before: 40, after: 0 }))
    }),
    ("floor parts", floor_parts),
    ("short tiles", |s| count_on(&s.small, &case(shape(), Causal).blocks(16, 16)).map(drop)),
    ("resident", resident),
    ("far", far),
    ("narrow", narrow),
    ("tall", tall),
    ("resident parts", |s| bound_of_parts(&s.resident, &wide(), &cut(&wide(), Cut::Keys, 1)).map(drop)),
    ("direct", direct),
    ("cooperative", in_matrices),
    ("sums in lanes", with_sums_in_lanes),
    ("split", |s| {
        let steep = case(scored(Score::new().scale(30.0)), Causal);
        // The last split of some rows has one tile.
        let odd = case(shape(), Causal).blocks(32, 32);
        plain().iter().chain([&steep, &odd]).try_for_each(|case| {
            count_on(&s.split, case)?;
            bound_on(&s.split, &Case { lse: true, ..case.clone() }).map(drop)
        })
    }),
    ("stale scratch", |s| stale_scratch(&s.split)),
    ("packed", |s| {
        packed().iter().try_for_each(|case| count_on(&s.small, case).and(bound_on(&s.small, case)).map(drop))
    }),
    ("odd f32", |s| odd_rows(s, F32)),
    ("odd f16", |s| odd_rows(s, F16)),
    ("odd bf16", |s| odd_rows(s, Bf16)),
    ("f16", |s| bound_on(&s.small, &in_type(case(shape(), Causal), F16)).map(drop)),
    ("bf16", |s| bound_on(&s.small, &in_type(case(shape(), Causal), Bf16)).map(drop)),
    ("rounding", rounding),
    ("offsets", offsets),
];

/// Grouped heads, more keys than queries, two chunks of the head dimension, gaps between rows; a short last block each way.
fn shape() -> Attention {
    Placement::Gap(4).apply(AttentionShape::new(2, 4, 70, 24).kv_heads(2).kv_len(150).value_dim(16))
}

/// The same under another score.
fn scored(score: Score) -> Attention {
    shape().score(score)
}

/// Numbers that tell their own place, stored in one type.
fn in_type(case: Case, element: ElementType) -> Case {
    case.storage(Storage::all(element)).kind(Kind::Arange)
}

fn case(attention: impl Into<Attention>, pattern: impl Into<Picked>) -> Case {
    let tile = Options::default().tile(TILE);
    Case::new(attention).pattern(pattern).options(tile).without_lse()
}

/// Full and partial blocks, runs of several partial blocks, sets of their own for heads and batch items, empty rows.
fn plain() -> [Case; 5] {
    let extent = shape().shape.extent();
    let empty_rows = Placement::Gap(4).apply(AttentionShape::new(1, 2, 150, 24).kv_len(70).value_dim(16));
    [
        case(shape(), Causal).kind(Kind::Rising),
        case(shape(), picked("blocks_per_head", &extent, 3)).kind(Kind::Peaky),
        case(shape(), picked("key_lengths", &extent, 1)),
        case(shape(), PairPredicate::new(|i, j| (i + j) % 2 == 0)).kind(Kind::Rising).seed(2),
        case(empty_rows, Causal).kind(Kind::Offset),
    ]
}

/// Few queries of heads that share key heads, in more rows than a tile has.
fn packed() -> [Case; 2] {
    let shape = AttentionShape::new(2, 12, 7, 24).kv_heads(2).kv_len(150).value_dim(16);
    [case(shape, Causal).kind(Kind::Rising), case(biased(shape), Window { before: 90, after: 0 })]
}

fn lse() -> [Case; 2] {
    let [causal, .., empty_rows] = plain();
    [Case { lse: true, ..causal }, Case { lse: true, ..empty_rows }]
}

/// The same score with a bias that has every axis of its own.
fn biased(attention: impl Into<Attention>) -> Attention {
    let attention = attention.into();
    let AttentionShape { batch, heads, q_len, kv_len, .. } = attention.shape;
    let score = attention.score.clone().bias(BiasStrides::broadcast([batch, heads, q_len, kv_len]));
    attention.score(score)
}

fn terms() -> [Case; 2] {
    let all = biased(scored(Score::new().softcap(2.0).alibi()));
    let with_lse = Case { lse: true, ..case(&all, Causal) };
    [case(&all, Full).bias(BiasValues::Holes), with_lse.kind(Kind::Offset)]
}

/// Many queries, and few whose heads share tiles.
fn dropout() -> (Case, Case) {
    let drops = |case: Case| {
        let score = case.attention.score.clone().dropout(0.4, 17);
        case.score(score)
    };
    let [few, ..] = packed();
    (drops(case(shape(), Causal)), drops(few))
}

fn removed() -> [Case; 2] {
    [case(biased(shape()), Full), case(biased(shape()), Causal)]
}

/// Bound, count and gather of gathers, permutations and splits.
fn parts(s: &Subject) -> Result<(), String> {
    let extent = shape().shape.extent();
    let case = case(shape(), picked("blocks_per_head", &extent, 3));
    cuts(&s.small, &case)?;
    let case = Case { lse: true, ..case };
    for how in [Cut::Gathers, Cut::KeysPermuted] {
        let parts = cut(&case, how, 1);
        count_of_parts(&s.small, &case, &parts)?;
        gather_of_parts(&s.small, &case, &parts)?;
    }
    Ok(())
}

fn cuts(gpu: &Gpu, case: &Case) -> Result<(), String> {
    [Cut::Pairs, Cut::Gathers].into_iter().try_for_each(|how| {
        let parts = cut(case, how, 1);
        let lse = Case { lse: true, ..case.clone() };
        bound_of_parts(gpu, case, &parts).and(bound_of_parts(gpu, &lse, &parts)).map(drop)
    })
}

/// Parts whose scores lie 1e9 and more apart.
fn floor_parts(s: &Subject) -> Result<(), String> {
    for key in [0, 1] {
        let strides = BiasStrides { query: shape().shape.kv_len as isize, key, ..Default::default() };
        let case = case(scored(Score::new().bias(strides)), Full);
        let case = Case { lse: true, ..case }.bias(BiasValues::Floors).kind(Kind::Peaky);
        bound_of_parts(&s.small, &case, &cut(&case, Cut::Keys, 2))?;
    }
    Ok(())
}

fn wide() -> Case {
    let shape = AttentionShape::new(1, 2, 70, 40).kv_len(99).value_dim(140);
    case(shape, Causal).options(Options::default().tile(RESIDENT))
}

fn resident(s: &Subject) -> Result<(), String> {
    bound_on(&s.resident, &wide()).and(gather_on(&s.resident, &wide())).map(drop)
}

fn far(s: &Subject) -> Result<(), String> {
    for case in &plain() {
        bound_on(&s.far, case)?;
        count_on(&s.far, case)?;
    }
    let window = Window { before: 30, after: 2 };
    strange::in_inputs::<f32>(&s.far, &Case { lse: true, ..case(shape(), window) })
}

fn narrow(s: &Subject) -> Result<(), String> {
    for case in &plain() {
        bound_on(&s.narrow, case)?;
        gather_on(&s.narrow, case)?;
    }
    let window = Window { before: 30, after: 2 };
    strange::in_inputs::<f32>(&s.narrow, &Case { lse: true, ..case(shape(), window) })?;
    strange::in_inputs::<f32>(&s.narrow, &Case { lse: true, ..case(shape(), Full) })
}

/// What is kept per query is kept of the lower queries, too: also what terms of the score keep.
fn tall(s: &Subject) -> Result<(), String> {
    for case in &plain() {
        bound_on(&s.tall, case)?;
        count_on(&s.tall, case)?;
        gather_on(&s.tall, case)?;
    }
    bound_on(&s.tall, &case(scored(Score::new().with(Segments).with(Sinks)), Causal))?;
    count_on(&s.tall, &dropout().0)?;
    let window = Window { before: 30, after: 2 };
    strange::in_inputs::<f32>(&s.tall, &Case { lse: true, ..case(shape(), window) })
}

/// What the direct tile does by itself: dot products, the online softmax, values, the end of rows.
fn direct(s: &Subject) -> Result<(), String> {
    let [causal, blocks, ..] = plain();
    let steep = case(scored(Score::new().scale(30.0)), Causal);
    for case in [&causal, &blocks, &steep] {
        bound_on(&s.direct, case)?;
        count_on(&s.direct, case)?;
        gather_on(&s.direct, case)?;
    }
    let lse = Case { lse: true, ..blocks };
    bound_on(&s.direct, &lse).and(bound_of_parts(&s.direct, &lse, &cut(&lse, Cut::Keys, 1))).map(drop)
}

/// Relative rows of every distance, with u and w; and clipped ones.
fn relative() -> [Case; 2] {
    let all = Relative::new(149, 219).u(true).w(true);
    [
        case(scored(Score::new().with(all)), Causal),
        case(scored(Score::new().with(Relative::new(9, 25).clip(true))), Full),
    ]
}

/// Segments, with heads and batch items of their own, and where queries are packed and reordered.
/// Both streams behind a memory of 30 keys, sorted by the order.
fn permutation(s: &Subject) -> Result<(), String> {
    let shape = AttentionShape::new(1, 2, 90, 8).kv_len(120);
    // 37 has no factor in common with 90.
    let order: Vec<u32> = (0..90).map(|n| (n * 37 + 11) % 90).collect();
    [false, true].into_iter().try_for_each(|query| {
        let case = Case::new(shape).pattern(Permutation::new(order.clone()).query(query));
        let parts = Parts::lower(case.pattern.as_dyn(), case.grid()).expect("a pattern of the crate");
        count_of_parts(&s.small, &case, &parts).and(gather_of_parts(&s.small, &case, &parts)).map(drop)
    })
}

fn segments(s: &Subject) -> Result<(), String> {
    let all = case(scored(Score::new().with(Segments)), Causal);
    bound_on(&s.small, &all)?;
    bound_of_parts(&s.small, &all, &cut(&all, Cut::Gathers, 1))?;
    let [few, ..] = packed();
    let score = few.attention.score.clone().with(Segments);
    bound_on(&s.small, &Case { attention: few.attention.clone().score(score), ..few }).map(drop)
}

/// What the tile of cooperative matrices does by itself; maxima that rise late, and a wide output.
fn in_matrices(s: &Subject) -> Result<(), String> {
    let [causal, blocks, ..] = plain().map(cooperatively);
    [&causal, &blocks].into_iter().try_for_each(|case| all_checks(&s.matrix, case))?;
    steep_and_wide().iter().try_for_each(|case| all_checks(&s.matrix, case))
}

/// What it does where its sums live in lanes.
fn with_sums_in_lanes(s: &Subject) -> Result<(), String> {
    steep_and_wide().iter().try_for_each(|case| all_checks(&s.lanes, case))
}

/// Maxima that rise late, and a wide output.
fn steep_and_wide() -> [Case; 2] {
    let wide = AttentionShape::new(1, 2, 70, 40).kv_len(99).value_dim(56);
    [case(scored(Score::new().scale(8.0)), Causal), case(wide, Causal).kind(Kind::Peaky)].map(cooperatively)
}

fn all_checks(gpu: &Gpu, case: &Case) -> Result<(), String> {
    bound_on(gpu, case)?;
    count_on(gpu, case)?;
    gather_on(gpu, case).map(drop)
}

/// f16 inputs, with lse, on the cooperative path.
fn cooperatively(case: Case) -> Case {
    let options = Options::default().path(KernelPath::Cooperative);
    Case { lse: true, ..case }.storage(Storage::all(F16).out(F32)).options(options)
}

fn odd(storage: Storage) -> Attention {
    AttentionShape::new(1, 3, 67, 7).storage(storage)
}

fn odd_rows(s: &Subject, element: ElementType) -> Result<(), String> {
    let case = case(odd(Storage::all(element)), Causal).kind(Kind::Arange);
    let gaps = Case { attention: Placement::Gap(3).apply(&case.attention), ..case.clone() };
    bound_on(&s.small, &case).and(bound_on(&s.small, &gaps)).and(gather_on(&s.small, &gaps)).map(drop)
}

/// Numbers that are none, in tiles that leave pairs out and in others.
fn strange_inputs(s: &Subject) -> Result<(), String> {
    let window = Window { before: 30, after: 2 };
    let plain = Case { lse: true, ..case(shape(), window) };
    for gpu in [&s.small, &s.direct] {
        strange::in_inputs::<f32>(gpu, &plain)?;
        strange::in_inputs::<f32>(gpu, &plain.clone().score(Score::new().softcap(3.0)))?;
    }
    // Tiles of which every row attends every key.
    let full = Case { lse: true, ..case(shape(), Full) };
    strange::in_inputs::<f32>(&s.direct, &full)?;
    strange::in_inputs::<half::f16>(&s.matrix, &cooperatively(plain))?;
    // The key is not of the first tile of its rows, and no later one asks for anything else.
    strange::in_inputs::<half::f16>(&s.matrix, &cooperatively(full))
}

/// Tensors that begin behind the start of their bindings, the bias too; rows of parts narrowed to f16.
fn offsets(s: &Subject) -> Result<(), String> {
    let plain = Placement::Offset(8).apply(shape());
    bound_on(&s.small, &case(&plain, Causal))?;
    cuts(&s.small, &case(plain.storage(Storage::default().out(F16)), Causal))?;
    let AttentionShape { batch, heads, q_len, kv_len, .. } = shape().shape;
    let strides = BiasStrides { offset: 12, ..BiasStrides::broadcast([batch, heads, q_len, kv_len]) };
    bound_on(&s.small, &case(scored(Score::new().bias(strides)), Causal)).map(drop)
}

/// Over one key the output is its value, rounded to bf16 by at most half a place (the bound would allow a whole one).
fn rounding(s: &Subject) -> Result<(), String> {
    let shape = AttentionShape::new(1, 1, 64, 4).kv_len(1).value_dim(16);
    let case = case(shape.storage(Storage::default().out(Bf16)), Full);
    for seed in 0..4 {
        let mut tensors = case.tensors::<f32, f32>();
        let mut draw = Draw::new(seed, 31);
        tensors.v.iter_mut().for_each(|v| *v = 1.0 + draw.below(1 << 20) as f32 / (1 << 20) as f32);
        let got =
            run::<f32, f32, half::bf16>(&s.small, &case.attention, &tensors.inputs(), &case.parts(), false)?;
        for (n, out) in got.out.iter().enumerate() {
            let (got, want) = (out.to_f32(), tensors.v[n % 16]);
            // Half of 2^-7, and a little for the weight and the division.
            if (got - want).abs() > (1.0 + 1.0 / 1024.0) / 256.0 {
                return Err(failed("rounding", &case, format!("{want} became {got}")));
            }
        }
    }
    Ok(())
}

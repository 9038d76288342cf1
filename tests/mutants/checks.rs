use crate::support::{
    BiasValues, Case, Cut, Draw, Picked, Placement, bound_of_parts, bound_on, cooperative, count_of_parts,
    count_on, cut, failed, gather_of_parts, gather_on, gpu, picked, run,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::{DirectTile, StagedTile, Tile};
use wgpu_attention::{
    AttentionShape, BiasStrides, Causal, ElementType, Full, Gpu, KernelPath, Kernels, Options, PairPredicate,
    Site, Window,
};
use wgpu_attention_testing::mutants::{Check, Edit};

/// Several tiles of keys and of rows a block, several chunks of a head, several pieces of v, whatever the device.
const TILE: Tile =
    Tile::Staged(StagedTile { lanes_r: 4, lanes_c: 8, wide: false, chunk: 4, v_keys: 16, q_resident: false });

/// Queries stay in workgroup memory, and outputs are wide. A row's 16 lanes are more than a software adapter runs in step.
const RESIDENT: Tile =
    Tile::Staged(StagedTile { lanes_r: 4, lanes_c: 16, wide: true, chunk: 8, v_keys: 4, q_resident: true });

/// Each lane for itself; several row tiles a block.
const DIRECT: Tile = Tile::Direct(DirectTile { lanes: 4 });

/// Kernels to be examined, under each tile.
pub(crate) struct Subject {
    small: Gpu,
    resident: Gpu,
    direct: Gpu,
    split: Gpu,
    matrix: Gpu,
}

impl Subject {
    pub(crate) fn new(edit: Edit) -> Self {
        let with = |options| {
            let edit = edit.clone();
            let kernels = Kernels::with_edited_shaders(gpu().device(), options, move |text: &str| edit(text));
            gpu().with_kernels(kernels.expect("valid options"))
        };
        let tile = |tile| with(Options::default().tile(tile).splits(1));
        let split = with(Options::default().tile(TILE).splits(3));
        let matrices = cooperative(Options::default().path(KernelPath::Cooperative));
        let options = *matrices.kernels().options();
        let edit = edit.clone();
        let kernels = Kernels::with_edited_shaders(matrices.device(), options, move |text: &str| edit(text));
        let matrix = matrices.with_kernels(kernels.expect("valid options"));
        Self { small: tile(TILE), resident: tile(RESIDENT), direct: tile(DIRECT), split, matrix }
    }
}

/// By name.
pub(crate) const CHECKS: &[(&str, Check<Subject>)] = &[
    ("bound", |s| plain().iter().try_for_each(|case| bound_on(&s.small, case).map(drop))),
    ("count", |s| plain().iter().try_for_each(|case| count_on(&s.small, case).map(drop))),
    ("gather", |s| plain().iter().try_for_each(|case| gather_on(&s.small, case).map(drop))),
    ("steep", |s| bound_on(&s.small, &case(shape().scale(30.0), Causal)).map(drop)),
    ("isolated", isolated),
    ("lse", |s| {
        lse().iter().try_for_each(|case| count_on(&s.small, case).and(bound_on(&s.small, case)).map(drop))
    }),
    ("terms", |s| terms().iter().try_for_each(|case| bound_on(&s.small, case).map(drop))),
    ("removed", |s| removed().iter().try_for_each(|case| count_on(&s.small, case).map(drop))),
    ("gathered terms", |s| {
        let case = case(biased(shape()), Full);
        bound_of_parts(&s.small, &case, &cut(&case, Cut::Gathers, 1)).map(drop)
    }),
    ("parts", parts),
    ("f16 parts", |s| cuts(&s.small, &case(odd(F32).output(F16), Window { before: 40, after: 0 }))),
    ("floor parts", floor_parts),
    ("short tiles", |s| count_on(&s.small, &case(shape(), Causal).blocks(16, 16)).map(drop)),
    ("resident", resident),
    ("resident parts", |s| bound_of_parts(&s.resident, &wide(), &cut(&wide(), Cut::Keys, 1)).map(drop)),
    ("direct", direct),
    ("matrix", matrix),
    ("split", |s| {
        let steep = case(shape().scale(30.0), Causal);
        plain().iter().chain([&steep]).try_for_each(|case| {
            count_on(&s.split, case)?;
            bound_on(&s.split, &Case { lse: true, ..case.clone() }).map(drop)
        })
    }),
    ("packed", |s| {
        packed().iter().try_for_each(|case| count_on(&s.small, case).and(bound_on(&s.small, case)).map(drop))
    }),
    ("odd f32", |s| odd_rows(s, F32)),
    ("odd f16", |s| odd_rows(s, F16)),
    ("odd bf16", |s| odd_rows(s, Bf16)),
    ("f16", |s| bound_on(&s.small, &case(shape().elements(F16), Causal).kind(Kind::Arange)).map(drop)),
    ("bf16", |s| bound_on(&s.small, &case(shape().elements(Bf16), Causal).kind(Kind::Arange)).map(drop)),
    ("rounding", rounding),
];

/// Grouped heads, more keys than queries, two chunks of the head dimension, gaps between rows; a short last block each way.
fn shape() -> AttentionShape {
    Placement::Gap(4).apply(AttentionShape::new(2, 4, 70, 24).kv_heads(2).kv_len(150).value_dim(16))
}

fn case(shape: AttentionShape, pattern: impl Into<Picked>) -> Case {
    let tile = Options::default().tile(TILE);
    Case::new(shape).pattern(pattern).options(tile).without_lse()
}

/// Full and partial blocks, runs of several partial blocks, sets of their own for heads and batch items, empty rows.
fn plain() -> [Case; 5] {
    let extent = shape().extent();
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

fn biased(shape: AttentionShape) -> AttentionShape {
    shape.bias(BiasStrides::broadcast([shape.batch, shape.heads, shape.q_len, shape.kv_len]))
}

fn terms() -> [Case; 2] {
    let shape = biased(shape()).softcap(2.0).alibi(true);
    [case(shape, Full).bias(BiasValues::Holes), case(shape, Causal).kind(Kind::Offset)]
}

fn removed() -> [Case; 2] {
    [case(biased(shape()), Full), case(biased(shape()), Causal)]
}

/// Bound, count and gather of gathers, permutations and splits.
fn parts(s: &Subject) -> Result<(), String> {
    let extent = shape().extent();
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
    let case = case(biased(shape()), Full);
    let mut case = Case { lse: true, ..case };
    for key in [0, 1] {
        let query = shape().kv_len;
        case.shape.bias = Some(BiasStrides { batch: 0, head: 0, query, key });
        let case = case.clone().bias(BiasValues::Floors).kind(Kind::Peaky);
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

/// What the direct tile does by itself: dot products, the online softmax, values, the end of rows.
fn direct(s: &Subject) -> Result<(), String> {
    let [causal, blocks, ..] = plain();
    let steep = case(shape().scale(30.0), Causal);
    for case in [&causal, &blocks, &steep] {
        bound_on(&s.direct, case)?;
        count_on(&s.direct, case)?;
        gather_on(&s.direct, case)?;
    }
    let lse = Case { lse: true, ..blocks };
    bound_on(&s.direct, &lse).and(bound_of_parts(&s.direct, &lse, &cut(&lse, Cut::Keys, 1))).map(drop)
}

/// What the tile of cooperative matrices does by itself; maxima that rise late, and a wide output.
fn matrix(s: &Subject) -> Result<(), String> {
    let of = |case: Case| Case {
        shape: case.shape.input(F16),
        lse: true,
        options: Options::default().path(KernelPath::Cooperative),
        ..case
    };
    let [causal, blocks, ..] = plain().map(of);
    let steep = of(case(shape().scale(8.0), Causal));
    let wide = of(case(AttentionShape::new(1, 2, 70, 40).kv_len(99).value_dim(56), Causal).kind(Kind::Peaky));
    for case in [&causal, &blocks, &steep, &wide] {
        bound_on(&s.matrix, case)?;
        count_on(&s.matrix, case)?;
        gather_on(&s.matrix, case)?;
    }
    Ok(())
}

fn odd(element: ElementType) -> AttentionShape {
    AttentionShape::new(1, 3, 67, 7).elements(element)
}

fn odd_rows(s: &Subject, element: ElementType) -> Result<(), String> {
    let case = case(odd(element), Causal).kind(Kind::Arange);
    let gaps = Case { shape: Placement::Gap(3).apply(case.shape), ..case.clone() };
    bound_on(&s.small, &case).and(bound_on(&s.small, &gaps)).and(gather_on(&s.small, &gaps)).map(drop)
}

/// NaN in keys that only some rows attend: the others stay as they are.
fn isolated(s: &Subject) -> Result<(), String> {
    let case = case(shape(), Causal);
    let rows = |tensors: &wgpu_attention::reference::Tensors<f32>| {
        let got = run::<f32, f32>(&s.small, &case.shape, &tensors.inputs(), &case.parts(), false);
        got.map_err(|e| failed("guards", &case, e))
    };
    let mut tensors = case.tensors();
    let before = rows(&tensors)?;
    let key = 149;
    for kv_head in 0..2 {
        let (k, v) = (case.shape.k_strides(), case.shape.v_strides());
        tensors.k[k.at(0, kv_head, key)..][..24].fill(f32::NAN);
        tensors.v[v.at(0, kv_head, key)..][..16].fill(f32::INFINITY);
    }
    let after = rows(&tensors)?;
    for (head, i) in (0..4).flat_map(|head| (0..70).map(move |i| (head, i))) {
        let site = Site { batch: 0, head, extent: case.shape.extent() };
        let at = case.shape.out_strides().at(0, head, i);
        let same = (at..at + 16).all(|n| before.out[n].to_bits() == after.out[n].to_bits());
        if !same && !case.pattern.as_dyn().keep(&site, i, key) {
            return Err(failed(
                "isolated",
                &case,
                format!("NaN at key {key} reached head {head}, query {i}"),
            ));
        }
    }
    Ok(())
}

/// Over one key the output is its value, rounded to bf16 by at most half a place (the bound would allow a whole one).
fn rounding(s: &Subject) -> Result<(), String> {
    let shape = AttentionShape::new(1, 1, 64, 4).kv_len(1).value_dim(16).output(Bf16);
    let case = case(shape, Full);
    for seed in 0..4 {
        let mut tensors = case.tensors::<f32>();
        let mut draw = Draw::new(seed, 31);
        tensors.v.iter_mut().for_each(|v| *v = 1.0 + draw.below(1 << 20) as f32 / (1 << 20) as f32);
        let got = run::<f32, half::bf16>(&s.small, &shape, &tensors.inputs(), &case.parts(), false)?;
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

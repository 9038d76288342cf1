//! The cooperative path: products of f16 in cooperative matrices. Inputs are f16; everything else is as on the scalar path.
//!
//! Each variant takes a second to compile, so the cases share few of them.

use crate::support::{
    BiasValues, Case, Cut, PATTERNS, Placement, bound, bound_of_parts, check_all, cooperative, count,
    count_of_parts, cut, gather, gather_of_parts, gpu, picked, run, summary,
};
use half::f16;
use wgpu_attention::ElementType::{self, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::{Matrices, MatrixSums, Tile, TileKind};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, BlockGrid, BlockMask, Buckets, Causal, Full, KernelPath, Kernels,
    Options, Score, Storage, Temperature, Window,
};

fn case(attention: impl Into<Attention>, output: ElementType) -> Case {
    let options = Options::default().path(KernelPath::Cooperative);
    Case::new(attention).storage(Storage::all(F16).out(output)).options(options)
}

/// Grouped heads, short last tiles both ways.
fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 70, 64).kv_heads(2).kv_len(150)
}

#[test]
fn lengths_and_inputs() {
    let mut cases = vec![];
    for (q_len, kv_len) in [(1, 1), (16, 17), (33, 31), (64, 64), (65, 130), (130, 1), (129, 300)] {
        let case = case(AttentionShape::new(1, 2, q_len, 64).kv_len(kv_len), F16);
        for kind in Kind::ALL {
            cases.push(case.clone().kind(kind));
            cases.push(case.clone().kind(kind).pattern(Causal).seed(2));
        }
    }
    check_all("cooperative: lengths", cases, bound);
    summary("cooperative");
}

/// Matrices of columns to spare, of none, a wide output, groups of 4 that are not whole.
#[test]
fn dimensions() {
    let mut cases = vec![];
    for (head_dim, value_dim) in [(16, 16), (7, 33), (80, 80), (128, 128)] {
        let shape = AttentionShape::new(1, 2, 70, head_dim).kv_heads(1).kv_len(99).value_dim(value_dim);
        cases.push(case(shape, F16).pattern(Causal));
        cases.push(case(shape, F16).kind(Kind::Arange));
    }
    check_all("cooperative: dimensions, bound", cases.clone(), bound);
    check_all("cooperative: dimensions, count", cases.clone(), count);
    check_all("cooperative: dimensions, gather", cases, gather);
}

#[test]
fn every_pattern_counts_its_own_pairs() {
    let case = case(shape(), F32);
    let cases = || {
        PATTERNS.iter().enumerate().map(|(n, (name, _))| {
            case.clone().pattern(picked(name, &case.attention.shape.extent(), n as u64)).seed(n as u64)
        })
    };
    check_all("cooperative: patterns, count", cases(), count);
    check_all("cooperative: patterns, gather", cases(), gather);
    check_all("cooperative: patterns, bound", cases(), bound);
}

/// A maximum rises by more than is put up with, again and again: in steps of one tile, and far beyond f16's range.
#[test]
fn maxima_that_rise_late() {
    let mut cases = vec![];
    for scale in [1.0, 8.0, 300.0] {
        let shape = AttentionShape::new(1, 2, 70, 64).kv_len(300);
        let scaled = shape.score(Score::new().scale(scale / 8.0));
        for (kind, pattern) in [(Kind::Rising, 300), (Kind::Peaky, 300), (Kind::Normal, 64)] {
            let window = Window { before: pattern, after: pattern };
            cases.push(case(&scaled, F32).kind(kind).pattern(window));
        }
    }
    check_all("cooperative: late maxima", cases, bound);
}

#[test]
fn score_terms() {
    let score = Score::new().bias(BiasStrides::broadcast([2, 4, 70, 150])).softcap(3.0).alibi();
    let all = shape().score(score);
    let cases = [
        case(&all, F16).bias(BiasValues::Holes),
        case(&all, F16).pattern(Causal),
        case(&all, F16).bias(BiasValues::Floors).kind(Kind::Peaky),
    ];
    check_all("cooperative: terms", cases, bound);
    let tempered = shape().score(Score::new().with(Temperature));
    let buckets = shape().score(Score::new().with(Buckets::new(32, 60).bidirectional(true)));
    check_all("cooperative: buckets", [case(&buckets, F16)], bound);
    let cases = [case(&tempered, F32), case(&tempered, F16).pattern(Causal).kind(Kind::Peaky)];
    check_all("cooperative: temperature, bound", cases.clone(), bound);
    check_all("cooperative: temperature, count", cases.clone(), count);
    check_all("cooperative: temperature, gather", cases, gather);
}

#[test]
fn layouts() {
    use Placement::{Bhld, Blhd, Gap, Offset, Reversed};
    let placements = [Bhld, Blhd, Gap(4), Gap(3), Offset(4), Offset(3), Reversed(4)];
    let cases = placements.map(|placement| case(placement.apply(shape()), F16).pattern(Causal));
    check_all("cooperative: layouts", cases, bound);
}

#[test]
fn parts_merge() {
    let case = case(shape(), F16).pattern(picked("blocks_per_head", &shape().extent(), 3));
    for how in [Cut::Keys, Cut::Gathers, Cut::EmptyFirst] {
        let parts = cut(&case, how, 1);
        let gpu = cooperative(case.options);
        bound_of_parts(&gpu, &case, &parts).unwrap_or_else(|e| panic!("{how:?}: {e}"));
        let wide = case.clone().storage(Storage::all(F16).out(F32));
        count_of_parts(&gpu, &wide, &parts).unwrap_or_else(|e| panic!("{how:?}: {e}"));
        gather_of_parts(&gpu, &wide, &parts).unwrap_or_else(|e| panic!("{how:?}: {e}"));
    }
}

/// Few queries: packed heads and split keys.
#[test]
fn few_queries() {
    let mut cases = vec![];
    for (q_len, splits) in [(1, 3), (9, 2), (20, 7)] {
        let shape = AttentionShape::new(1, 8, q_len, 64).kv_heads(2).kv_len(403);
        let options = Options::default().path(KernelPath::Cooperative).splits(splits);
        cases.push(case(shape, F16).options(options).pattern(Causal));
    }
    check_all("cooperative: few queries, bound", cases.clone(), bound);
    check_all("cooperative: few queries, count", cases, count);
}

/// Sums that live in lanes: as many pieces as a lane can hold, maxima that rise late, numbers that are none, parts.
#[test]
fn sums_in_lanes() {
    let options = Options::default().path(KernelPath::Cooperative).matrix_sums(MatrixSums::Lanes);
    let case = |attention: Attention, output| case(attention, output).options(options);
    let steep = shape().score(Score::new().scale(1.0));
    let cases = [
        case(shape().into(), F32).pattern(Causal),
        case(steep.clone(), F32).kind(Kind::Rising),
        case(steep, F32).kind(Kind::Peaky).pattern(Window { before: 64, after: 64 }),
        case(AttentionShape::new(1, 2, 70, 7).kv_len(99).value_dim(33).into(), F16).kind(Kind::Arange),
        case(AttentionShape::new(1, 2, 33, 128).kv_len(99).into(), F16).pattern(Causal),
    ];
    check_all("cooperative: sums in lanes, bound", cases.clone(), bound);
    check_all("cooperative: sums in lanes, count", cases.clone(), count);
    check_all("cooperative: sums in lanes, gather", cases, gather);
    let case = case(shape().into(), F16).pattern(picked("blocks_per_head", &shape().extent(), 3));
    let gpu = cooperative(case.options);
    bound_of_parts(&gpu, &case, &cut(&case, Cut::Keys, 1)).unwrap_or_else(|e| panic!("{e}"));
    let tile = |kernels: &Kernels| {
        kernels.attention(shape().storage(Storage::all(F16)), &Full).expect("a plan").explain().tile
    };
    assert!(matches!(tile(gpu.kernels()), Tile::Cooperative(tile) if tile.sums == MatrixSums::Lanes));
    let usual = cooperative(Options::default().path(KernelPath::Cooperative));
    assert!(matches!(tile(usual.kernels()), Tile::Cooperative(tile) if tile.sums == MatrixSums::Matrices));
}

#[test]
fn the_same_call_twice_gives_the_same_bits() {
    let case = case(shape(), F16).pattern(Causal);
    let (gpu, tensors, parts) = (cooperative(case.options), case.tensors::<f16, f16>(), case.parts());
    let once =
        || run::<f16, f16, f16>(&gpu, &case.attention, &tensors.inputs(), &parts, true).expect("guards");
    assert_eq!(once(), once());
}

#[test]
fn the_choice_of_a_path_is_explained() {
    let choice = |kernels: &Kernels, attention: &Attention| {
        kernels.attention(attention, &Full).map(|plan| plan.explain().choice.clone())
    };
    let forced = cooperative(Options::default().path(KernelPath::Cooperative));
    let halves = shape().storage(Storage::all(F16));
    let chosen = choice(forced.kernels(), &halves).expect("a plan");
    assert_eq!((chosen.path, chosen.why.as_str()), (KernelPath::Cooperative, "the caller forced it"));

    // A software adapter only emulates matrices.
    let free = cooperative(Options::default());
    let chosen = choice(free.kernels(), &halves).expect("a plan");
    let on_cpu = free.device().adapter_info().device_type == wgpu::DeviceType::Cpu;
    let expected = if on_cpu { KernelPath::Scalar } else { KernelPath::Cooperative };
    assert_eq!(chosen.path, expected, "{}", chosen.why);

    let chosen = choice(free.kernels(), &shape().into()).expect("a plan");
    assert!(chosen.path == KernelPath::Scalar && chosen.why.contains("f16"), "{}", chosen.why);
    // Intel's matrices are not square.
    for size in [[8, 16, 16], [8, 8, 16]] {
        let mut options = Options::default();
        options.other_matrices = Some(size);
        let oblong = Kernels::new(free.device(), options).expect("checked with the plan");
        let chosen = choice(&oblong, &halves).expect("a plan");
        let sizes = format!("{} x {} x {}", size[0], size[1], size[2]);
        assert!(chosen.path == KernelPath::Scalar && chosen.why.contains(&sizes), "{}", chosen.why);
    }
    let few = AttentionShape::new(1, 4, 1, 64).kv_len(500).storage(Storage::all(F16));
    let chosen = choice(free.kernels(), &few).expect("a plan");
    assert!(chosen.path == KernelPath::Scalar && chosen.why.contains("q_len"), "{}", chosen.why);
}

/// What cannot run is an error, never another kernel.
#[test]
fn what_the_path_cannot_do() {
    let error = |kernels: &Kernels, attention: &Attention, block: usize| {
        let grid = BlockGrid::from(&attention.shape).blocks(block, block);
        let mask = BlockMask::new(&Full, grid).expect("a mask");
        kernels.attention_parts(attention, mask).map(drop).expect_err("it cannot run").to_string()
    };
    let options = Options::default().path(KernelPath::Cooperative);
    let forced = cooperative(options);
    let halves = shape().storage(Storage::all(F16));
    let of_f32 = error(forced.kernels(), &shape().into(), 64);
    assert!(of_f32.contains("storage.q") && of_f32.contains("f16") && of_f32.contains("f32"), "{of_f32}");
    let size = forced.kernels().options().matrix_size.expect("it has matrices");
    if size == 16 {
        let small = error(forced.kernels(), &halves, 16);
        assert!(small.contains("block_q") && small.contains("32"), "{small}");
    }

    let mixed = error(forced.kernels(), &shape().storage(Storage::all(F16).kv(F32)), 64);
    assert!(mixed.contains("storage.kv") && mixed.contains("f32"), "{mixed}");

    // A device that was not asked for them.
    let plain = Kernels::new(gpu().device(), options).expect("checked with the plan");
    let without = error(&plain, &halves, 64);
    assert!(without.contains("device") && without.contains("COOPERATIVE"), "{without}");

    // Matrices that nobody named, a tile of the other path, matrices that no kernel uses.
    let unnamed = Kernels::new(forced.device(), options).expect("checked with the plan");
    assert!(error(&unnamed, &halves, 64).contains("Options::matrices"));
    let mixed = Kernels::new(forced.device(), options.tile_kind(TileKind::Staged)).expect("as above");
    let mixed = error(&mixed, &halves, 64);
    assert!(mixed.contains("tile") && mixed.contains("cooperative"), "{mixed}");
    let odd = TileKind::Cooperative(Matrices { size: 4, subgroup: 32 });
    let limits = wgpu_attention::wgsl::TileLimits { kind: odd, ..wgpu_attention::wgsl::TileLimits::WEBGPU };
    let odd = Tile::choose(64, 64, 64, 64, limits).expect_err("no such matrices").to_string();
    assert!(odd.contains("matrices") && odd.contains("16 by 16"), "{odd}");
}

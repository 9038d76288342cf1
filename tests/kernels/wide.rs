//! Rows of more than 256 elements, as those of latent attention are: the bound, the sets, what else a forward call has.

use crate::support::{
    Case, Cut, PATTERNS, Placement, bound, bound_of_parts, check_all, count, count_of_parts, cut, gather,
    gather_of_parts, gpu, picked, weights_on,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::{Tile, TileKind, TileLimits};
use wgpu_attention::{
    AttentionShape, BiasStrides, Causal, KernelPath, Options, Relative, Score, Segments, Sinks, Storage,
    WeightsOptions,
};

/// Of keys and of values: the widest of both, of each beside narrow ones, and none that is whole groups of four.
const DIMS: [(usize, usize); 5] = [(576, 512), (576, 64), (64, 512), (257, 259), (512, 300)];

fn shape((head_dim, value_dim): (usize, usize)) -> AttentionShape {
    AttentionShape::new(1, 2, 70, head_dim).kv_heads(1).kv_len(150).value_dim(value_dim)
}

/// Wider than 256 both, and little to compute.
fn some() -> AttentionShape {
    AttentionShape::new(2, 2, 70, 264).kv_len(90).value_dim(260)
}

#[test]
fn dimensions() {
    let of = |dims| Case::new(shape(dims)).pattern(Causal);
    let kinds = |dims| [Kind::Normal, Kind::Peaky, Kind::Arange].map(|kind| of(dims).kind(kind));
    check_all("wide: bound", DIMS.into_iter().flat_map(kinds), bound);
    check_all("wide: count", DIMS.map(of), count);
    check_all("wide: gather", DIMS.map(of), gather);
}

#[test]
fn element_types() {
    let [latent, .., odd, _] = DIMS;
    let types = [
        (Storage::all(F16), latent),
        (Storage::all(Bf16), odd),
        (Storage::all(F32).kv(F16).out(F16), latent),
        (Storage::all(F16).out(F32), odd),
    ];
    let cases = types.map(|(storage, dims)| Case::new(shape(dims).storage(storage)).pattern(Causal));
    check_all("wide: types, bound", cases.clone(), bound);
    check_all("wide: types, gather", cases, gather);
}

#[test]
fn every_pattern() {
    let of = |(name, _): &(&str, _)| Case::new(some()).pattern(picked(name, &some().extent(), 2));
    let cases: Vec<_> = PATTERNS.iter().map(of).collect();
    check_all("wide: patterns, count", cases.clone(), count);
    check_all("wide: patterns, gather", cases, gather);
}

#[test]
fn parts_orders_and_layouts() {
    let case = || [Case::new(some()).pattern(Causal)];
    for how in Cut::ALL {
        let of = |what| format!("wide: {how:?}, {what}");
        check_all(&of("bound"), case(), |case| bound_of_parts(gpu(), case, &cut(case, how, 1)));
        check_all(&of("count"), case(), |case| count_of_parts(gpu(), case, &cut(case, how, 1)));
        check_all(&of("gather"), case(), |case| gather_of_parts(gpu(), case, &cut(case, how, 1)));
    }
    let placed = [Placement::Blhd, Placement::Gap(3), Placement::SharedKv];
    let cases = placed.map(|placement| Case::new(placement.apply(some().value_dim(264))).pattern(Causal));
    check_all("wide: layouts", cases, bound);
}

/// Latent attention, whose heads share keys and values: heads packed into one tile, keys split over workgroups.
#[test]
fn heads_that_share_keys() {
    let mut cases = vec![];
    for (q_len, heads, splits) in [(1, 16, 3), (3, 6, 2), (20, 8, 1)] {
        let latent = AttentionShape::new(2, heads, q_len, 576).kv_heads(1).kv_len(300).value_dim(512);
        let options = Options::default().splits(splits);
        cases.push(Case::new(latent).options(options).pattern(Causal).kind(Kind::Peaky));
    }
    check_all("wide: shared keys, bound", cases.clone(), bound);
    check_all("wide: shared keys, gather", cases, gather);
}

#[test]
fn terms() {
    let relative = Relative::new(89, 160).u(true).w(true);
    let scores = [
        Score::new().softcap(2.0).bias(BiasStrides::broadcast([2, 2, 70, 90])).with(Sinks),
        Score::new().with(relative),
        Score::new().with(Segments),
        Score::new().dropout(0.3, 7),
    ];
    let cases = scores.map(|score| Case::new(some().score(score)).pattern(Causal));
    check_all("wide: terms, bound", cases.clone(), bound);
    check_all("wide: terms, count", cases, count);
}

/// The tiles of devices with little and with much workgroup memory, in blocks of more keys than a tile has, and of fewer.
#[test]
fn tiles() {
    let tile = |limits| Tile::choose(576, 512, 64, 64, limits).expect("it fits");
    let [small, large] = [TileLimits::WEBGPU, TileLimits::GENEROUS].map(tile);
    assert!(small.rows() < large.rows() && small.keys() == 128, "{small} {large}");
    let forced = |tile| Case::new(shape(DIMS[0])).pattern(Causal).options(Options::default().tile(tile));
    let mut cases = [small, large].map(forced).to_vec();
    let staged = Case::new(some()).pattern(Causal).options(Options::default().tile_kind(TileKind::Staged));
    cases.extend([(64, 256), (16, 16)].map(|(block_q, block_k)| staged.clone().blocks(block_q, block_k)));
    check_all("wide: tiles, bound", cases.clone(), bound);
    check_all("wide: tiles, count", cases, count);
}

/// As far as matrices' tiles have room.
#[test]
fn on_matrices() {
    let shape = AttentionShape::new(2, 2, 70, 264).kv_len(99).value_dim(40);
    let options = Options::default().path(KernelPath::Cooperative);
    let case = Case::new(shape.storage(Storage::all(F16).out(F32))).pattern(Causal).options(options);
    check_all("wide: on matrices, bound", [case.clone()], bound);
    check_all("wide: on matrices, count", [case], count);
}

#[test]
fn weights_of_chosen_rows() {
    let case = Case::new(shape(DIMS[0])).pattern(Causal);
    let options = WeightsOptions::default().top(5);
    weights_on(gpu(), &case, &case.parts(), options).unwrap_or_else(|e| panic!("{e}"));
}

//! Every element within its bound of the formula in f64, given the device's buckets.

use super::super::{Case, both_kinds_of_tile};
use half::{bf16, f16};
use wgpu_attention::reference::Kind;
use wgpu_attention::{
    AttentionShape, BiasStrides, Buckets, Custom, Element, LshOptions, Projections, Score, Sinks, Temperature,
};

fn shape(len: usize) -> AttentionShape {
    AttentionShape::new(2, 2, len, 16).value_dim(8)
}

fn case(len: usize, options: LshOptions) -> Case<f32> {
    Case::new(shape(len), options, Kind::Normal, len as u64)
}

/// Under the tile that GPUs get: see [`Case::check`].
fn check<E: Element, G: Element>(case: &Case<E>) {
    let worst = case.gradients_close::<G>(&both_kinds_of_tile()[0]).unwrap_or_else(|e| panic!("{e}"));
    println!("{worst:.3?} {:?}", case.options);
}

#[test]
fn the_flags_alone_and_together() {
    // None, all, and every pair of neighbours apart, by turns under each kind of tile.
    for (n, flags) in [0, 63, 0b010101, 0b101010, 0b110011, 0b001100, 0b011110u32].into_iter().enumerate() {
        let flag = |n: u32| flags >> n & 1 == 1;
        let options = LshOptions::new(3, 8, 12)
            .wrap(flag(0))
            .chain_rounds(flag(1))
            .causal(flag(2))
            .within_bucket(flag(3))
            .count_once(flag(4))
            .key_mask(flag(5))
            .look_ahead(usize::from(flag(2)));
        let worst = case(70, options.clone()).gradients_close::<f32>(&both_kinds_of_tile()[n % 2]);
        println!("{:.3?} {options:?}", worst.unwrap_or_else(|e| panic!("{e}")));
    }
}

#[test]
fn looks_in_both_directions_each_chunk_once() {
    let looks = [(0, 0), (0, 2), (3, 0), (2, 5), (100, 100)];
    for (n, (back, ahead)) in looks.into_iter().enumerate() {
        let options = LshOptions::new(2, 4, 16).look_back(back).look_ahead(ahead);
        let options = options.wrap(n % 2 == 0).chain_rounds(n % 4 < 2).causal(n % 3 == 0);
        check::<_, f32>(&case(65, options.key_mask(n == 2)));
    }
}

#[test]
fn lengths_chunks_and_rounds_at_the_edges() {
    for (chunk, len) in [(1, 1), (1, 2), (64, 64), (64, 130), (65, 64), (65, 129), (300, 700)] {
        check::<_, f32>(&case(len, LshOptions::new(2, 4, chunk).chain_rounds(chunk % 2 == 0)));
    }
    for rounds in [1, 8] {
        check::<_, f32>(&case(50, LshOptions::new(rounds, 6, 8)));
    }
    check::<_, f32>(&case(20, LshOptions::new(5, 6, 8).count_once(true)));
}

#[test]
fn head_sizes() {
    for (d, dv) in [(1, 1), (7, 5), (16, 64), (80, 128), (256, 256)] {
        let shape = AttentionShape::new(1, 2, 60, d).value_dim(dv);
        check::<_, f32>(&Case::<f32>::new(shape, LshOptions::new(2, 8, 16), Kind::Normal, 1));
    }
}

#[test]
fn element_types() {
    fn types<E: Element>() {
        let case = |rounds, d| {
            let shape = AttentionShape::new(2, 2, 55, d);
            let options = LshOptions::new(rounds, 8, 16).key_mask(true);
            Case::<E>::new(shape, options, Kind::Normal, 4)
        };
        check::<_, f32>(&case(1, 16));
        check::<_, E>(&case(3, 7));
    }
    types::<f32>();
    types::<f16>();
    types::<bf16>();
}

#[test]
fn kinds_of_inputs() {
    for kind in Kind::ALL {
        let options = LshOptions::new(2, 8, 16).norm_eps(1e-6);
        let case = Case::<f32>::new(shape(70), options, kind, 9);
        let dout = case.dout();
        let got = case.gradients_on::<f32>(&both_kinds_of_tile()[0], &dout);
        let exact = case.exact_gradients::<f32>(&dout, &got.buckets);
        for (name, got, exact) in [("dqk", got.dqk, exact.dqk), ("dv", got.dv, exact.dv)] {
            let found = exact.compare(got, 0.0);
            println!("{kind:?} {name}: {found}");
            assert!(found.pass, "{kind:?} {name}: {found}");
        }
    }
}

/// Terms by the positions; a bias that is no number for some queries' own keys, and removes pairs; the derivative of a cap at products with
/// unit keys; a term of one's own, whose slope is not 1.
pub(super) fn scored() -> [Case<f32>; 6] {
    let bias = BiasStrides::broadcast([2, 2, 70, 70]);
    let text = "fn squash_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return s * squash_root(s); }
fn squash_root(s: vec4<f32>) -> vec4<f32> { return vec4(1.0) / (vec4(1.0) + abs(s)); }
fn squash_slope(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return squash_root(s) * squash_root(s); }";
    let unit = f64::from(f32::EPSILON);
    let squash = Custom::new("squash", text, |s, _| s / (1.0 + s.abs()))
        .error(move |_, error, after, _| error + 8.0 * unit * after.abs() + 1e-37)
        .slope(|s, _| (1.0 + s.abs()).powi(-2), move |_, error, slope, _| 2.0 * error + 16.0 * unit * slope);
    let scores = [
        Score::new().scale(-0.7).softcap(0.5),
        Score::new().with(Temperature).alibi(),
        Score::new().with(Buckets::new(8, 20).bidirectional(true)),
        Score::new().softcap(1.5).bias(bias),
        Score::new().scale(1.0).with(Sinks),
        Score::new().bias(bias).with(squash),
    ];
    let mut n = 0;
    scores.map(|score| {
        n += 1;
        let options = LshOptions::new(2, 4, 24).count_once(n % 2 == 0).self_penalty(-0.5).norm_eps(0.25);
        let mut case = Case::<f32>::new(shape(70).score(score), options, Kind::Normal, n);
        if case.attention.score.term("bias").is_some() {
            let own = |(n, &bias): (usize, &f32)| match (n % 70 == n / 70 % 70, n % 3) {
                (true, 0) => f32::NAN,
                (true, 1) => f32::NEG_INFINITY,
                _ if n % 11 == 0 => f32::NEG_INFINITY,
                _ => bias,
            };
            let bias = case.tensor("bias").iter().enumerate().map(own).collect();
            case = case.with_tensor("bias", bias);
        }
        case
    })
}

#[test]
fn terms_of_the_score() {
    for case in scored() {
        check::<_, f32>(&case);
    }
}

#[test]
fn scales_penalties_and_projections() {
    for (scale, penalty) in [(1.0, -1e5), (0.1, 0.0), (-2.0, -5e4), (3.0, 4.0), (0.0, -1.0)] {
        let attention = shape(64).score(Score::new().scale(scale));
        check::<_, f32>(&Case::<f32>::new(
            attention,
            LshOptions::new(2, 8, 16).self_penalty(penalty),
            Kind::Normal,
            3,
        ));
    }
    let given = Projections::Given { per_head: false };
    let seeded = LshOptions::new(2, 8, 16).projections(Projections::Seeded { seed: 5, per_head: false });
    let mut case = case(70, seeded.clone());
    case.projections = seeded.seeded_projections(&case.attention.shape);
    case.options = seeded.projections(given);
    check::<_, f32>(&case);
}

/// Norms from 1e-15 to 1e15 among ordinary ones, and zero vectors, which have no gradient as keys unless there is an eps.
#[test]
fn norms_far_from_one() {
    for eps in [0.0, 1e-6, 4.0] {
        let mut case = case(70, LshOptions::new(2, 8, 16).norm_eps(eps));
        for (row, x) in case.qk.chunks_mut(16).enumerate() {
            let size = [1.0, 1e-15, 0.0, 1e-6, 1e3][row % 5];
            x.iter_mut().for_each(|x| *x *= size);
        }
        check::<_, f32>(&case);
    }
}

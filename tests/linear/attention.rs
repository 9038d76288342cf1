//! Rows within their bounds.

use super::{Case, maps, shape};
use half::{bf16, f16};
use wgpu_attention::reference::{Kind, Rows};
use wgpu_attention::{AttentionShape, Element, FeatureMap, LinearOptions, reference};
use wgpu_attention_testing::{Placement, gpu};

/// Values of one sign for features that are not bounded below: their denominators would come near 0.
fn positive<E: Element>(mut case: Case<E>) -> Case<E> {
    if case.options.map == FeatureMap::Identity {
        let absolute = |x: &mut E| *x = E::from_f64((*x).into().abs());
        case.q.iter_mut().chain(&mut case.k).for_each(absolute);
    }
    case
}

#[test]
fn every_map_is_within_its_bound() {
    for (name, map) in maps() {
        for causal in [false, true] {
            let options = LinearOptions::new(map).causal(causal);
            let case = positive(Case::<f32>::new(shape(), options, Kind::Normal, 5));
            let report = case.check();
            case.check_on(gpu()).unwrap_or_else(|e| panic!("{e}"));
            println!("{name}, causal {causal}: {report}");
        }
    }
}

#[test]
fn inputs_of_every_kind() {
    for kind in [Kind::Peaky, Kind::Offset, Kind::Rising, Kind::Tiny] {
        for map in [FeatureMap::favor(16), FeatureMap::Elu] {
            let report = Case::<f32>::new(shape(), LinearOptions::new(map).causal(true), kind, 8).check();
            println!("{kind:?}: {report}");
        }
    }
}

#[test]
fn sixteen_bits() {
    fn both<E: Element>() {
        for map in [FeatureMap::favor(16), FeatureMap::Elu] {
            for (shape, causal) in [(shape(), true), (AttentionShape::new(1, 2, 67, 7), false)] {
                let options = LinearOptions::new(map).causal(causal).key_mask(!causal);
                Case::<E>::new(shape, options, Kind::Normal, 2).check();
            }
        }
    }
    both::<f16>();
    both::<bf16>();
}

#[test]
fn sizes_and_lengths() {
    let of = |q_len, kv_len, dim, value_dim| {
        let shape = AttentionShape::new(1, 2, q_len, dim).kv_len(kv_len).value_dim(value_dim);
        for (map, causal) in [(FeatureMap::favor(5), true), (FeatureMap::Elu, true), (FeatureMap::Elu, false)]
        {
            Case::<f32>::new(shape, LinearOptions::new(map).causal(causal), Kind::Normal, 7).check();
        }
    };
    for len in [1, 2, 63, 64, 65, 127, 128, 129, 200] {
        of(len, len, 8, 8);
    }
    for (q_len, kv_len) in [(1, 130), (5, 64), (130, 1), (130, 66), (64, 300), (3, 0), (70, 2)] {
        of(q_len, kv_len, 8, 8);
    }
}

#[test]
fn wide_heads_and_many_features() {
    let shape = AttentionShape::new(1, 1, 80, 256).value_dim(256);
    Case::<f32>::new(shape, LinearOptions::new(FeatureMap::favor(300)).causal(true), Kind::Normal, 1).check();
    let shape = AttentionShape::new(1, 1, 80, 1).value_dim(1);
    Case::<f32>::new(shape, LinearOptions::new(FeatureMap::favor(1)).causal(true), Kind::Normal, 1).check();
}

#[test]
fn masks_decay_and_eps() {
    let decay = vec![0.9, 0.996];
    for map in [FeatureMap::favor(12), FeatureMap::Elu] {
        let causal = || LinearOptions::new(map).causal(true);
        for options in [
            LinearOptions::new(map).key_mask(true).denominator_eps(0.25),
            causal().key_mask(true),
            causal().decay(decay.clone()),
            causal().decay(decay.clone()).key_mask(true).denominator_eps(1e-3),
            causal().denominator_eps(1.0),
        ] {
            Case::<f32>::new(shape(), options, Kind::Normal, 4).check();
        }
    }
}

#[test]
fn layouts() {
    for placement in [Placement::Blhd, Placement::Gap(3), Placement::Gap(4), Placement::BlhdGap(1)] {
        let attention = placement.apply(AttentionShape::new(2, 2, 66, 8));
        let options = LinearOptions::new(FeatureMap::favor(8)).causal(true);
        Case::<f32>::new(attention, options, Kind::Arange, 6).check();
    }
}

#[test]
fn long_sequences() {
    let shape = AttentionShape::new(1, 1, 5000, 16);
    for (map, causal) in [(FeatureMap::favor(16), true), (FeatureMap::Softmax, false)] {
        let case = Case::<f32>::new(shape, LinearOptions::new(map).causal(causal), Kind::Normal, 3);
        let report = case.report(&case.run(), Rows::Sample { count: 64, seed: 1 });
        println!("{report}");
        assert!(report.pass && report.unspecified == 0, "{report}");
    }
}

#[test]
fn the_reference_is_what_favor_estimates() {
    // FAVOR+ is an estimate of softmax attention: with many features it comes near.
    let shape = AttentionShape::new(1, 1, 40, 8);
    let mut case = Case::<f32>::new(shape, LinearOptions::new(FeatureMap::favor(1024)), Kind::Normal, 3);
    case.q.iter_mut().chain(&mut case.k).for_each(|x| *x *= 0.5);
    let softmax = reference::attention(shape, &case.q, &case.k, &case.v, &wgpu_attention::Full).unwrap();
    let linear = reference::linear_attention(shape, &case.options, &case.inputs()).unwrap();
    let far = softmax.out.iter().zip(&linear).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(far < 0.1, "{far}");
    let got = gpu().linear_attention::<f32, f32, f32>(shape, &case.options, &case.inputs()).unwrap();
    assert!(case.report(&got, Rows::All).pass);
}

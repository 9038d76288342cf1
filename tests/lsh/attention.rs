//! Buckets, order and rows against the reference, over every option and the sizes at the edges.

use super::{Case, both_kinds_of_tile};
use half::{bf16, f16};
use wgpu_attention::reference::{Kind, Rows};
use wgpu_attention::{AttentionShape, Element, Layout, LshOptions, Projections, Score, Strides};
use wgpu_attention_testing::combinations;

fn shape(len: usize) -> AttentionShape {
    AttentionShape::new(2, 2, len, 16)
}

fn case(len: usize, options: LshOptions) -> Case<f32> {
    Case::new(shape(len), options, Kind::Normal, len as u64)
}

#[test]
fn the_flags_alone_and_together() {
    // None, each alone, all, and every pair of neighbours apart, half of them under each kind of tile.
    let all = [0, 1, 2, 4, 8, 16, 32, 63, 0b010101, 0b101010, 0b110011, 0b011110u32];
    for [n, tile] in combinations([all.len(), 2]) {
        let flags = all[n];
        let flag = |n: u32| flags >> n & 1 == 1;
        let options = LshOptions::new(3, 8, 12)
            .wrap(flag(0))
            .chain_rounds(flag(1))
            .causal(flag(2))
            .within_bucket(flag(3))
            .count_once(flag(4))
            .key_mask(flag(5))
            .look_ahead(usize::from(flag(2)));
        let got = case(70, options.clone()).check_on(&both_kinds_of_tile()[tile], Rows::All);
        if !options.key_mask {
            assert!(got.lse.iter().all(|&lse| lse > f32::MIN), "every query sees itself");
        }
    }
}

#[test]
fn looks_in_both_directions_each_chunk_once() {
    let looks = [(0, 0), (1, 1), (0, 2), (3, 0), (2, 5), (100, 100), (1, 0), (2, 1)];
    for (n, (back, ahead)) in looks.into_iter().enumerate() {
        let options = LshOptions::new(2, 4, 16).look_back(back).look_ahead(ahead);
        case(65, options.wrap(n % 2 == 0).chain_rounds(n % 4 < 2)).check(Rows::All);
    }
}

#[test]
fn lengths_and_chunks_at_the_edges() {
    for chunk in [1, 63, 64, 65] {
        for len in [1, 2, 63, 64, 65, 127, 128, 129, 130] {
            case(len, LshOptions::new(2, 4, chunk).chain_rounds(chunk % 2 == 0)).check(Rows::All);
        }
    }
}

#[test]
fn a_chunk_longer_than_any_tile() {
    case(700, LshOptions::new(2, 2, 300).causal(true)).check(Rows::All);
    case(2051, LshOptions::new(3, 16, 128)).check(Rows::Auto);
}

/// One more than 2^16 places: several passes of the sort, a last chunk of one or two.
#[test]
fn a_long_sequence() {
    let options = LshOptions::new(2, 1024, 64).buckets(vec![32, 32]).causal(true);
    let shape = AttentionShape::new(1, 1, 65_537, 16);
    Case::<f32>::new(shape, options, Kind::Normal, 9).check(Rows::Sample { count: 64, seed: 9 });
}

#[test]
fn rounds_from_one_to_the_limit() {
    for rounds in [1, 2, 5, 8, LshOptions::MAX_ROUNDS] {
        case(50, LshOptions::new(rounds, 6, 8)).check(Rows::All);
        case(20, LshOptions::new(rounds, 6, 8).count_once(true)).check(Rows::All);
    }
}

#[test]
fn bucket_counts_single_and_factorised() {
    let lists: [&[usize]; 7] = [&[2], &[34], &[250], &[1024], &[4, 8], &[2, 6, 4], &[256, 256]];
    for (n, buckets) in lists.into_iter().enumerate() {
        let options = LshOptions::new(2, 2, 16).buckets(buckets.to_vec()).key_mask(n % 3 == 2);
        let got = case(100, options.clone()).check(Rows::All);
        let most = options.bucket_count() - usize::from(!options.key_mask);
        assert!(got.buckets.iter().all(|&bucket| bucket as usize <= most));
    }
    // The most buckets of a single factor.
    case(40, LshOptions::new(1, LshOptions::MAX_BUCKETS, 8)).check(Rows::All);
}

#[test]
fn head_sizes() {
    for (d, dv) in [(1, 1), (7, 5), (16, 64), (33, 16), (64, 64), (80, 128), (256, 256)] {
        let shape = AttentionShape::new(1, 2, 100, d).value_dim(dv);
        Case::<f32>::new(shape, LshOptions::new(2, 8, 32), Kind::Normal, 1).check(Rows::All);
    }
}

#[test]
fn element_types() {
    fn check<E: Element>() {
        for (rounds, d) in [(1, 16), (3, 16), (3, 7)] {
            let shape = AttentionShape::new(2, 2, 75, d);
            Case::<E>::new(shape, LshOptions::new(rounds, 8, 16).key_mask(true), Kind::Normal, 4)
                .check(Rows::All);
        }
    }
    check::<f32>();
    check::<f16>();
    check::<bf16>();
}

#[test]
fn kinds_of_inputs() {
    for kind in Kind::ALL {
        let options = LshOptions::new(2, 8, 16).norm_eps(1e-6);
        let case = Case::<f32>::new(shape(100), options, kind, 9);
        let got = case.run();
        let report = case.verify(&got, Rows::All);
        println!("{kind:?}: {report}");
        assert!(report.pass, "{kind:?}: {report}");
    }
}

#[test]
fn layouts() {
    let packed = Strides::new(2 * 70 * 40 + 8, 20, 40);
    let reversed = Strides::new(-2 * 70 * 16, -70 * 16, -16).offset((2 * 2 * 70 - 1) * 16);
    let strided = [packed, packed.offset(12), packed.offset(3), reversed].map(Layout::Strided);
    for layout in [Layout::Blhd].into_iter().chain(strided) {
        let attention = shape(70).layout(layout);
        Case::<f32>::new(attention, LshOptions::new(2, 8, 16), Kind::Normal, 2).check(Rows::All);
    }
}

#[test]
fn projections_per_head_shared_and_given() {
    let options = LshOptions::new(2, 8, 16);
    for per_head in [true, false] {
        let seeded = options.clone().projections(Projections::Seeded { seed: 5, per_head });
        let case = case(90, seeded.clone());
        let got = case.check(Rows::All);
        // The same numbers, given.
        let mut given = case.clone();
        given.projections = seeded.seeded_projections(&case.attention.shape);
        given.options = options.clone().projections(Projections::Given { per_head });
        assert!(given.check(Rows::All) == got, "the seed's numbers, given, give the same bits");
    }
}

#[test]
fn scales_and_penalties() {
    for (scale, penalty) in [(1.0, -1e5), (0.1, 0.0), (-2.0, -5e4), (3.0, 4.0), (0.0, -1.0)] {
        let attention = shape(64).score(Score::new().scale(scale));
        Case::<f32>::new(attention, LshOptions::new(2, 8, 16).self_penalty(penalty), Kind::Normal, 3)
            .check(Rows::All);
    }
}

#[test]
fn zero_vectors_have_a_key_of_zero() {
    let mut case = case(64, LshOptions::new(2, 8, 16));
    case.qk[..16 * 16].fill(0.0);
    let got = case.check(Rows::All);
    assert!(got.buckets[..16].iter().all(|&bucket| bucket == 0), "ties go to the lowest index");
}

#[test]
fn everything_masked_sees_nothing() {
    let mut case = case(50, LshOptions::new(2, 8, 16).key_mask(true));
    case.key_mask = Some(vec![false; 100]);
    let got = case.check(Rows::All);
    assert!(got.out.iter().all(|&o| o == 0.0) && got.lse.iter().all(|&lse| lse == f32::MIN));
}

/// Keys of every size beside a query of ordinary size, judged by the definition: one chunk holds all, so that hashing does not count.
pub(super) fn unit_keys(gpu: &wgpu_attention::Gpu) -> Result<(), String> {
    let (len, d) = (40, 12);
    let shape = AttentionShape::new(1, 1, len, d).value_dim(2);
    for eps in [0.0, 1e-30, f32::MIN_POSITIVE, 1e-6, 1e30] {
        let mut case = Case::<f32>::new(shape, LshOptions::new(1, 2, len).norm_eps(eps), Kind::Normal, 21);
        let sizes = [1.0f32, 1e-36, 1e-30, 1e-25, 1e-19, 1e-15, 1e15, 1e19, 1e25, 1e30, 1e36];
        for j in 1..len {
            // Away from 0, where small elements would be subnormal.
            let larger = |x: &mut f32| *x = (*x + x.signum()) * sizes[j % sizes.len()];
            case.qk[j * d..][..d].iter_mut().for_each(larger);
        }
        case.qk[d..2 * d].fill(0.0);
        let got = gpu.lsh(shape, &case.options, &case.inputs()).map_err(|e| e.to_string())?;
        let x = |j: usize| case.qk[j * d..][..d].iter().map(|&x| f64::from(x));
        let score = |j: usize| {
            let root = (x(j).map(|x| x * x).sum::<f64>() + f64::from(eps)).sqrt();
            let product: f64 = x(0).zip(x(j)).map(|(q, k)| q * k).sum();
            if root == 0.0 { 0.0 } else { product / root / (d as f64).sqrt() }
        };
        let weights: Vec<f64> = (1..len).map(|j| score(j).exp()).collect();
        let l: f64 = weights.iter().sum();
        for c in 0..2 {
            let values = (1..len).map(|j| f64::from(case.v[j * 2 + c]));
            let want: f64 = weights.iter().zip(values).map(|(p, v)| p * v).sum::<f64>() / l;
            let off = (f64::from(got.out[c]) - want).abs();
            if off.is_nan() || off > 3e-6 {
                return Err(format!("eps {eps:e}: {} instead of {want}", got.out[c]));
            }
        }
        if (f64::from(got.lse[0]) - l.ln()).abs() > 3e-6 {
            return Err(format!("eps {eps:e}: lse {} instead of {}", got.lse[0], l.ln()));
        }
        // Rows of large queries overflow, and are not compared.
        let report = case.verify(&got, Rows::All);
        if !report.pass {
            return Err(format!("the reference: {report}"));
        }
    }
    Ok(())
}

#[test]
fn keys_of_any_size_are_unit_keys() {
    for gpu in both_kinds_of_tile() {
        unit_keys(&gpu).unwrap();
    }
}

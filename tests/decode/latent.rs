//! Values that are a part of keys, in one tensor; rows as wide as they may be.

use crate::Checked;
use crate::oracles::{Case, ORACLES, Oracle, share_values};
use crate::pages::{check_last, text};
use crate::session::Session;
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::{Kind, Tensors};
use wgpu_attention::{
    AppendBuffers, CacheShape, CacheStorage, DecodeShape, ElementType, Gpu, Options, RotaryPairs,
    rotary_tables,
};
use wgpu_attention_testing::{gpu, gpu_with};

fn all(gpu: &Gpu, case: &Case) -> Checked {
    ORACLES.iter().try_for_each(|&oracle| case.check_on(gpu, oracle))
}

/// Grouped heads, two sequences in pages.
fn small() -> Case {
    let cache = CacheShape::new(2, 2, 64, 32).values_in_keys(8..28).paged(8, 16);
    let steps = vec![vec![5, 2], vec![1, 0], vec![4, 5], vec![0, 3], vec![5, 4]];
    Case { steps, ..Case::new(DecodeShape::new(cache, 6, 5).counts(true), &[]) }
}

/// A latent row of 576 elements, over two chunks of keys.
fn latent(storage: impl Into<CacheStorage>) -> Case {
    let cache = CacheShape::new(1, 1, 320, 576).values_in_keys(64..576).paged(16, 20).storage(storage);
    let mut steps: Vec<Vec<usize>> = vec![vec![51]; 5];
    steps.extend([vec![1], vec![2], vec![40]]);
    Case { steps, ..Case::new(DecodeShape::new(cache, 3, 51).counts(true), &[]) }
}

/// All checks of both, in f32 and in int8.
pub(crate) fn parts_of_keys(gpu: &Gpu) -> Checked {
    let mut int8 = small();
    int8.shape.cache = int8.shape.cache.storage(CacheStorage::Int8);
    all(gpu, &small())?;
    all(gpu, &int8)?;
    all(gpu, &latent(F32))
}

#[test]
fn values_are_elements_of_keys() {
    parts_of_keys(gpu()).unwrap_or_else(|e| panic!("{e}"));
    // The whole key, its first elements, its last.
    for range in [0..32, 0..4, 28..32] {
        let mut case = small();
        case.shape.cache = CacheShape::new(2, 2, 64, 32).values_in_keys(range);
        all(gpu(), &case).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn every_storage_of_values_in_keys() {
    for (input, storage, output) in [
        (F32, F16.into(), F32),
        (F16, F16.into(), F16),
        (Bf16, Bf16.into(), F32),
        (F32, CacheStorage::Int8, F32),
    ] {
        for case in [small(), latent(storage)] {
            let mut shape = case.shape.input(input).output(output);
            shape.cache = shape.cache.storage(storage);
            let case = Case { shape, ..case };
            case.check(Oracle::Bound(Kind::Normal)).unwrap_or_else(|e| panic!("{e}"));
            case.check(Oracle::Count).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn latent_rows_in_packed_steps_windows_and_splits() {
    for splits in [1, 2] {
        let gpu = gpu_with(Options::default().splits(splits));
        all(&gpu, &latent(F32)).unwrap_or_else(|e| panic!("{splits} splits: {e}"));
    }
    let cache = CacheShape::new(3, 1, 64, 576).values_in_keys(0..512).storage(F16);
    let shape = DecodeShape::packed(cache, 5, 30).window(Some(9)).sinks(2);
    let steps = vec![vec![20, 0, 1], vec![1, 21, 1], vec![9, 0, 14]];
    let case = Case { steps, ..Case::new(shape, &[]) };
    all(gpu(), &case).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn wide_rows_of_their_own_values() {
    for (head_dim, value_dim) in [(576, 512), (576, 4), (320, 259), (61, 511), (257, 256)] {
        for storage in [F32.into(), CacheStorage::Int8] {
            let cache = CacheShape::new(1, 1, 300, head_dim).value_dim(value_dim).storage(storage);
            let case = Case::new(DecodeShape::new(cache, 5, 4), &[4; 3]);
            case.check(Oracle::Bound(Kind::Normal)).unwrap_or_else(|e| panic!("{e}"));
            case.check(Oracle::Count).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    let cache = CacheShape::new(1, 2, 512, 576).value_dim(512).storage(F16);
    for kind in Kind::ALL {
        let case = Case::new(DecodeShape::new(cache, 4, 64), &[64; 5]);
        case.check(Oracle::Bound(kind)).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// A sequence's text, whose values are a part of its keys.
fn latent_text(shape: &DecodeShape, seed: u64) -> Tensors<f32, f32> {
    let mut text = text(shape, 30, seed);
    share_values(&shape.cache, &mut text, Oracle::Bound(Kind::Normal));
    text
}

#[test]
fn forks_share_pages_of_the_one_tensor() {
    let shape = DecodeShape::new(CacheShape::new(2, 1, 64, 24).values_in_keys(8..24).paged(8, 16), 2, 5);
    let shape = shape.counts(true);
    let texts = [1, 2].map(|seed| latent_text(&shape, seed));
    let mut session = Session::new(gpu().kernels(), gpu().queue(), shape, None).unwrap();
    session.feed(&[5, 0], &texts);
    session.step::<f32>(&[5, 0]).unwrap();
    session.cache.fork(gpu().queue(), 0, 1).unwrap();
    // Sequence 1 goes on by itself, in a copy of the page.
    session.feed(&[0, 4], &[texts[0].clone(), texts[0].clone()]);
    let step = session.step::<f32>(&[0, 4]).unwrap();
    check_last(&session, &step, 1, 4, &texts[0]).unwrap();
    session.feed_from(&[3, 0], &[5, 0], &texts);
    let step = session.step::<f32>(&[3, 0]).unwrap();
    check_last(&session, &step, 0, 3, &texts[0]).unwrap();
    session.check_untouched().unwrap();
}

#[test]
fn values_behind_what_turns_do_not_turn() {
    let cache = CacheShape::new(1, 1, 64, 24).values_in_keys(8..24);
    let shape = DecodeShape::new(cache, 2, 5).rotary(Some((8, RotaryPairs::Interleaved)));
    let text = latent_text(&shape, 3);
    let tables = rotary_tables(64, 8, 100.0);
    let mut session = Session::new(gpu().kernels(), gpu().queue(), shape, Some(&tables)).unwrap();
    session.feed(&[5], std::slice::from_ref(&text));
    session.step::<f32>(&[5]).unwrap();
    let (keys, values) = session.sequence::<f32>(0);
    assert_eq!(values, text.v[..5 * 16]);
    // At position 0 nothing turns, from there on the first elements do.
    assert_eq!(keys[..24], text.k[..24]);
    assert!((1..5).all(|p| keys[p * 24..][..8] != text.k[p * 24..][..8]));
}

#[test]
fn one_tensor_is_all_that_there_is() {
    let shape = CacheShape::new(2, 1, 64, 576).values_in_keys(0..512).storage(ElementType::F16).paged(8, 16);
    let cache = gpu().kernels().kv_cache(&shape).unwrap();
    assert!(cache.values().is_none());
    assert_eq!((cache.keys().size(), shape.len_values(), shape.values_bytes()), (16 * 8 * 1152, 0, 0));
    assert_eq!(shape.len_keys(), 16 * 8 * 576);
}

#[test]
fn what_cannot_be_a_part_of_keys_is_refused() {
    let of = |cache: CacheShape| DecodeShape::new(cache, 4, 2);
    let cache = CacheShape::new(2, 2, 64, 24);
    let turning = |range| of(cache.values_in_keys(range)).rotary(Some((8, RotaryPairs::HalfSplit)));
    let need = "values_in_keys: need multiples of 4 that end at head_dim (24) or before, got";
    for (shape, words) in [
        (of(cache.values_in_keys(8..28)), format!("{need} 8..28")),
        (of(cache.values_in_keys(2..10)), format!("{need} 2..10")),
        (of(cache.values_in_keys(4..10)), format!("{need} 4..10")),
        (of(cache.values_in_keys(usize::MAX - 3..usize::MAX)), format!("{need} ")),
        (of(cache.values_in_keys(8..8)), "value_dim: need 1 to 512, got 0".to_owned()),
        (turning(4..24), "values_in_keys: need values behind the 8 elements that turn (rotary)".to_owned()),
    ] {
        let error = gpu().kernels().decode(&shape).expect_err(&words).to_string();
        assert!(error.contains(&words), "{words}: {error}");
    }
    gpu().kernels().decode(&turning(8..24)).unwrap();
    let shape = of(cache.values_in_keys(8..24));
    let session = Session::new(gpu().kernels(), gpu().queue(), shape, None).unwrap();
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let append = AppendBuffers::new(whole(&session.k), whole(&session.v));
    let error = session.plan.append(&session.cache, append).unwrap_err().to_string();
    assert!(error.contains("v: need none"), "{error}");
    // Another part of the keys is another shape.
    let other = gpu().kernels().kv_cache(&cache.values_in_keys(4..20)).unwrap();
    let error = session.plan.append(&other, AppendBuffers::new(whole(&session.k), None)).unwrap_err();
    assert!(error.to_string().starts_with("cache: need one of the planned sizes"), "{error}");
}

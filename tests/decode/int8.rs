//! A cache of int8: each row quantised by its own scale, and attended as it is then.

use crate::Checked;
use crate::oracles::{Case, ORACLES, Oracle};
use half::f16;
use wgpu_attention::reference::{Kind, Tensors, int8_scale};
use wgpu_attention::{CacheShape, CacheStorage, DecodeShape, Element, ElementType, Gpu, Options};
use wgpu_attention_testing::{gpu, gpu_with};

fn int8(batch: usize, capacity: usize, head_dim: usize) -> CacheShape {
    CacheShape::new(batch, 2, capacity, head_dim).storage(CacheStorage::Int8)
}

fn all(gpu: &Gpu, case: &Case) -> Checked {
    ORACLES.iter().try_for_each(|&oracle| case.check_on(gpu, oracle))
}

/// Long rows, pages, sequences of different lengths.
pub(crate) fn quantized(gpu: &Gpu) -> Checked {
    let cache = int8(2, 64, 140).value_dim(72).paged(8, 16);
    let steps = vec![vec![5, 2], vec![1, 0], vec![4, 5], vec![0, 3], vec![5, 4]];
    let case = Case { steps, ..Case::new(DecodeShape::new(cache, 4, 5).counts(true), &[]) };
    all(gpu, &case)?;
    case.check_on(gpu, Oracle::Bound(Kind::Arange))
}

#[test]
fn rows_are_quantised_by_their_own_scales() {
    quantized(gpu()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn every_size_and_page() {
    for (head_dim, value_dim) in [(1, 1), (7, 3), (16, 64), (64, 80), (128, 128), (256, 256)] {
        for page in [None, Some(4), Some(64)] {
            let cache = int8(1, 64, head_dim).value_dim(value_dim);
            let cache = page.map_or(cache, |page| cache.paged(page, 64 / page));
            let case = Case::new(DecodeShape::new(cache, 6, 4), &[4; 5]);
            for oracle in [Oracle::Bound(Kind::Normal), Oracle::Count] {
                case.check(oracle).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

#[test]
fn every_kind_of_numbers_over_chunks_and_splits() {
    for kind in Kind::ALL {
        let shape = DecodeShape::new(int8(1, 700, 32), 4, 64).counts(true);
        let case = Case::new(shape, &[64, 64, 64, 64, 1, 1, 64, 64, 50]);
        let gpu = gpu_with(Options::default().splits(2));
        case.check_on(&gpu, Oracle::Bound(kind)).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn windows_and_sinks() {
    for (window, sinks) in [(3, 2), (20, 5), (300, 1)] {
        let shape = DecodeShape::new(int8(1, 512, 12).paged(32, 16), 4, 40).counts(true);
        let case =
            Case::new(shape.window(Some(window)).sinks(sinks), &[40, 7, 40, 40, 40, 1, 40, 40, 40, 40]);
        all(gpu(), &case).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// New rows in f16, tiny and huge ones, rows of zeros.
#[test]
fn rows_of_any_size() {
    let shape = DecodeShape::new(int8(1, 32, 12), 2, 4).input(ElementType::F32);
    let case = Case::new(shape, &[4; 2]);
    let mut text: Tensors<f32, f32> =
        wgpu_attention::reference::random(shape.of_sequence(8, 8), Kind::Normal, 1).unwrap();
    let sizes = [0.0, 1e-38, 1e-32, 1e-20, 1.0, 1e10, 1e30, 3e37];
    for x in [&mut text.k, &mut text.v] {
        x.iter_mut().enumerate().for_each(|(n, x)| *x *= sizes[n / 12 % 8]);
    }
    let (session, _) = case.run::<f32, f32, f32>(gpu(), std::slice::from_ref(&text)).unwrap();
    let (keys, values) = session.sequence::<f32>(0);
    for (given, stored) in [(&text.k, &keys), (&text.v, &values)] {
        crate::session::check_stored(&shape.cache, given, stored, 12).unwrap_or_else(|e| panic!("{e}"));
        // A row's own largest element has the most steps.
        for (row, got) in given.chunks(12).zip(stored.chunks(12)) {
            let most = got.iter().fold(0f32, |most, x| most.max(x.abs()));
            let full = row.iter().any(|x| x.abs() > 1e-27);
            assert!(!full || most == 127.0 * int8_scale(row), "{row:?}: {got:?}");
        }
    }
    let halves = DecodeShape::new(int8(2, 64, 24).paged(16, 8), 4, 3).input(f16::TYPE).output(f16::TYPE);
    Case::new(halves, &[3; 5]).check(Oracle::Bound(Kind::Normal)).unwrap_or_else(|e| panic!("{e}"));
}

/// What is quantised again keeps every bit: a cache can be written from another one's rows.
#[test]
fn rows_that_were_quantised_stay_as_they_are() {
    let shape = DecodeShape::new(int8(1, 32, 20), 2, 8);
    let case = Case::new(shape, &[8; 2]);
    let run = |text: &Tensors<f32, f32>| {
        let (session, _) = case.run::<f32, f32, f32>(gpu(), std::slice::from_ref(text)).unwrap();
        session.sequence::<f32>(0)
    };
    let mut text: Tensors<f32, f32> =
        wgpu_attention::reference::random(shape.of_sequence(16, 16), Kind::Normal, 2).unwrap();
    let first = run(&text);
    (text.k, text.v) = first.clone();
    assert!(run(&text) == first);
}

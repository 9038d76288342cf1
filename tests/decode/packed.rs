//! Rows of all sequences packed in one tensor: chunks of prompts and single tokens in one call.

use crate::Checked;
use crate::oracles::{Case, ORACLES, Oracle, small};
use crate::pages::text;
use crate::session::{Session, Step};
use wgpu_attention::reference::Kind;
use wgpu_attention::{
    AppendBuffers, AttendBuffers, CacheShape, CacheStorage, DecodeShape, ElementType, Gpu, Layout, Layouts,
    Options,
};
use wgpu_attention_testing::{gpu, gpu_with};

/// Grouped heads, sequences that take many rows, few or none, rows that are nobody's.
fn case() -> Case {
    let cache = CacheShape::new(4, 2, 96, 16).value_dim(20).paged(8, 48);
    let shape = DecodeShape::packed(cache, 6, 23);
    let steps =
        vec![vec![20, 0, 1, 2], vec![1, 21, 1, 0], vec![0, 0, 0, 0], vec![1, 1, 19, 1], vec![9, 0, 0, 14]];
    Case { steps, ..Case::new(shape, &[]) }
}

/// All checks of that; and that rows which are nobody's are empty.
pub(crate) fn shared(gpu: &Gpu) -> Checked {
    ORACLES.iter().try_for_each(|&oracle| case().check_on(gpu, oracle))?;
    nobodys(gpu)
}

fn nobodys(gpu: &Gpu) -> Checked {
    let shape = DecodeShape::packed(CacheShape::new(2, 1, 64, 8), 2, 12).lse(true);
    let texts = [1, 2].map(|seed| text(&shape, 40, seed));
    let make = || Session::new(gpu.kernels(), gpu.queue(), shape, None).map_err(|e| e.to_string());
    let mut session = make()?;
    for counts in [[5, 7], [2, 4], [0, 1]] {
        session.feed(&counts, &texts);
        let Step { out, lse } = session.step::<f32>(&counts)?;
        let used = counts[0] + counts[1];
        // [rows, H, dv], and [H, rows].
        let empty = out[used * 2 * 8..].iter().all(|&x| x == 0.0)
            && (0..2).all(|head| lse[head * 12 + used..(head + 1) * 12].iter().all(|&x| x == f32::MIN));
        if !empty || out[..used * 2 * 8].contains(&0.0) {
            return Err(format!("{counts:?}: rows from {used} on are nobody's, and no others"));
        }
        session.check_untouched()?;
    }
    Ok(())
}

#[test]
fn sequences_share_the_rows_of_a_call() {
    shared(gpu()).unwrap_or_else(|e| panic!("{e}"));
    for splits in [1, 3] {
        // Keys over several chunks and splits, and more rows than a tile has.
        let shape = DecodeShape::packed(CacheShape::new(3, 1, 768, 16), 2, 400);
        let steps = vec![vec![300, 1, 99], vec![1, 1, 1], vec![0, 398, 1], vec![257, 2, 3]];
        let case = Case { steps, ..Case::new(shape, &[]) };
        let gpu = gpu_with(Options::default().splits(splits));
        for oracle in ORACLES {
            case.check_on(&gpu, oracle).unwrap_or_else(|e| panic!("{splits} splits: {e}"));
        }
    }
}

#[test]
fn windows_storages_and_layouts() {
    let mut case = case();
    case.shape = case.shape.window(Some(3)).sinks(2);
    case.check(Oracle::Gather).unwrap_or_else(|e| panic!("{e}"));
    case.shape.cache = case.shape.cache.storage(CacheStorage::Int8);
    case.check(Oracle::Bound(Kind::Normal)).unwrap_or_else(|e| panic!("{e}"));
    case.shape.cache = case.shape.cache.storage(ElementType::F16);
    case.check(Oracle::Count).unwrap_or_else(|e| panic!("{e}"));
    // [H, rows, d].
    case.shape = case.shape.layouts(Layouts::all(Layout::Bhld));
    case.check(Oracle::Bound(Kind::Normal)).unwrap_or_else(|e| panic!("{e}"));
}

/// The same rows packed, and each sequence by itself in a step with counts.
#[test]
fn packed_rows_are_those_of_a_step_with_counts() {
    let counted = Case { steps: vec![vec![5, 2], vec![1, 0], vec![4, 5]], ..Case::new(small(), &[]) };
    let counted = Case { shape: counted.shape.counts(true), ..counted };
    let packed = Case {
        shape: DecodeShape::packed(counted.shape.cache, counted.shape.heads, 10).lse(true),
        ..counted.clone()
    };
    let texts = [1, 2].map(|seed| text(&small(), 10, seed));
    let gpu = gpu_with(Options::default().splits(1));
    let (_, one) = counted.run::<f32, f32, f32>(&gpu, &texts).unwrap();
    let (_, other) = packed.run::<f32, f32, f32>(&gpu, &texts).unwrap();
    assert!(one == other);
}

/// Offsets that are wrong on the device: nothing outside is read or written.
#[test]
fn wrong_offsets_are_cut_off() {
    let shape = DecodeShape::packed(CacheShape::new(3, 1, 64, 8).paged(8, 24), 2, 12).lse(true);
    let texts = [1, 2, 3].map(|seed| text(&shape, 40, seed));
    let make = || Session::new(gpu().kernels(), gpu().queue(), shape, None).expect("valid");
    let mut right = make();
    right.feed(&[4, 3, 5], &texts);
    let wanted = right.step::<f32>(&[4, 3, 5]).unwrap();
    for wrong in [[7u32, 4, 7, 12], [0, 4, 7, u32::MAX], [u32::MAX, 4, 7, 13]] {
        let mut session = make();
        session.feed(&[4, 3, 5], &texts);
        gpu().queue().write_buffer(&session.counts, 256, bytemuck::cast_slice(&wrong));
        let step = session.step::<f32>(&[4, 3, 5]).unwrap();
        assert!(step.out == wanted.out && step.lse == wanted.lse, "{wrong:?} is as good as right");
        session.check_untouched().unwrap();
    }
    for wrong in [[0u32, 9, 2, 12], [0, 12, 12, 0], [0, u32::MAX, 0, 5], [5, 1, 8, 3]] {
        let mut session = make();
        // Pages of all that wrong counts may reach.
        session.cache.reserve(gpu().queue(), &[24; 3]).unwrap();
        session.feed(&[4, 3, 5], &texts);
        gpu().queue().write_buffer(&session.counts, 256, bytemuck::cast_slice(&wrong));
        // The guards around out and lse are untouched.
        session.step::<f32>(&[4, 3, 5]).unwrap();
        let lengths = session.words(Some(session.cache.device_lengths()));
        assert!(lengths[..3].iter().all(|&length| length <= 12), "{wrong:?}: {lengths:?}");
    }
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let cache = CacheShape::new(2, 2, 64, 8);
    let shape = DecodeShape::packed(cache, 4, 100);
    for (shape, words) in [
        (shape.counts(true), "counts: need none beside packed rows"),
        (DecodeShape::packed(cache, 4, 0), "new: need at least 1 row, got 0"),
        (DecodeShape::packed(cache, 3, 5), "kv_heads: need a divisor of heads"),
        (DecodeShape::packed(cache, 4, 1 << 28), "needs"),
    ] {
        let error = shape.check().expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let session = Session::new(gpu().kernels(), gpu().queue(), shape, None).unwrap();
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let append = AppendBuffers::new(whole(&session.k), whole(&session.v));
    let error = session.plan.append(&session.cache, append).unwrap_err().to_string();
    assert!(error.contains("offsets: need a buffer"), "{error}");
    let attend = || AttendBuffers::new(whole(&session.q), whole(&session.out));
    let error = session.plan.attend(&session.cache, attend()).unwrap_err().to_string();
    assert!(error.contains("offsets: need a buffer"), "{error}");
    let small = wgpu_attention_testing::storage(gpu().device(), &[0.0; 2]);
    let error = session.plan.attend(&session.cache, attend().offsets(whole(&small))).unwrap_err().to_string();
    assert!(error.contains("offsets: need 12 bytes"), "{error}");
    let plain = Session::new(gpu().kernels(), gpu().queue(), DecodeShape::new(cache, 4, 2), None).unwrap();
    let attend = AttendBuffers::new(whole(&plain.q), whole(&plain.out)).offsets(whole(&small));
    let error = plain.plan.attend(&plain.cache, attend).unwrap_err().to_string();
    assert!(error.contains("offsets: need none"), "{error}");
}

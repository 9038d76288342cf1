//! NaN and infinity in rows; wrong lengths, pages and counts in the device's memory.

use crate::Checked;
use crate::pages::text;
use crate::session::{Session, Step};
use wgpu_attention::reference::Tensors;
use wgpu_attention::{CacheShape, CacheStorage, DecodeShape, Gpu};
use wgpu_attention_testing::gpu;

fn shape() -> DecodeShape {
    DecodeShape::new(CacheShape::new(2, 1, 64, 8).paged(8, 16), 2, 4).counts(true).lse(true)
}

/// That and one with a cache of int8.
fn shapes() -> [DecodeShape; 2] {
    let mut int8 = shape();
    int8.cache = int8.cache.storage(CacheStorage::Int8);
    [shape(), int8]
}

fn start(gpu: &Gpu, shape: DecodeShape) -> (Session, Vec<Tensors<f32, f32>>) {
    let session = Session::new(gpu.kernels(), gpu.queue(), shape, None).expect("valid");
    (session, vec![text(&shape, 40, 1), text(&shape, 40, 2)])
}

/// Rows of `[B, H, new]` that hold what is not finite, in all of out and in lse; or `Err` for one that does so in part.
fn strange_rows(step: &Step<f32>) -> Result<Vec<usize>, String> {
    let mut rows = vec![];
    for (n, row) in step.out.chunks(8).enumerate() {
        let strange = row.iter().filter(|x| !x.is_finite()).count() + usize::from(!step.lse[n].is_finite());
        match strange {
            0 => {}
            9 => rows.push(n),
            _ => return Err(format!("row {n} is strange in part: {row:?}, {}", step.lse[n])),
        }
    }
    Ok(rows)
}

/// What is not finite shows in the rows that attend it, in all of them, and in no others.
pub(crate) fn spread(gpu: &Gpu) -> Checked {
    shapes().into_iter().try_for_each(|shape| spread_in(gpu, shape))
}

fn spread_in(gpu: &Gpu, shape: DecodeShape) -> Checked {
    for (tensor, value) in
        [(0, f32::NAN), (1, f32::NAN), (1, f32::INFINITY), (2, f32::NAN), (2, f32::NEG_INFINITY)]
    {
        let (mut session, mut texts) = start(gpu, shape);
        // Position 6 of sequence 0; of the query, of head 1.
        match tensor {
            0 => texts[0].q[(40 + 6) * 8 + 3] = value,
            1 => texts[0].k[6 * 8 + 3] = value,
            _ => texts[0].v[6 * 8 + 3] = value,
        }
        let mut found = vec![];
        for _ in 0..3 {
            session.feed(&[4, 4], &texts);
            found.push(strange_rows(&session.step::<f32>(&[4, 4])?)?);
        }
        let wanted = match tensor {
            0 => vec![vec![], vec![6], vec![]],
            _ => vec![vec![], vec![2, 3, 6, 7], (0..8).collect()],
        };
        if found != wanted {
            return Err(format!("tensor {tensor}, {value}: strange rows {found:?}, not {wanted:?}"));
        }
    }
    Ok(())
}

/// What a window hides never matters.
pub(crate) fn hidden(gpu: &Gpu) -> Checked {
    shapes().into_iter().try_for_each(|shape| hidden_in(gpu, shape.window(Some(2)).sinks(1)))
}

fn hidden_in(gpu: &Gpu, shape: DecodeShape) -> Checked {
    let (mut session, mut texts) = start(gpu, shape);
    texts[0].v[3 * 8] = f32::NAN;
    texts[0].k[4 * 8] = f32::INFINITY;
    let mut found = vec![];
    for _ in 0..3 {
        session.feed(&[4, 4], &texts);
        found.push(strange_rows(&session.step::<f32>(&[4, 4])?)?);
    }
    // Key 3 is in sight of queries 3 to 5, key 4 of 4 to 6.
    let wanted = vec![vec![3, 7], vec![0, 1, 2, 4, 5, 6], vec![]];
    if found == wanted { Ok(()) } else { Err(format!("strange rows {found:?}, not {wanted:?}")) }
}

#[test]
fn what_is_not_finite_shows_where_it_is_attended() {
    spread(gpu()).unwrap_or_else(|e| panic!("{e}"));
    hidden(gpu()).unwrap_or_else(|e| panic!("{e}"));
}

/// One sequence's words are wrong in the device's memory: nothing is written outside, and the other sequence is as it was.
pub(crate) fn wrong_words(gpu: &Gpu) -> Checked {
    let run = |spoil: &dyn Fn(&Session)| -> Result<(Vec<f32>, Session), String> {
        let (mut session, texts) = start(gpu, shape());
        session.feed(&[4, 4], &texts);
        session.step::<f32>(&[4, 4])?;
        session.feed(&[4, 4], &texts);
        // The pages of the next step, before they are spoilt.
        session.cache.reserve(gpu.queue(), &[4, 4]).map_err(|e| e.to_string())?;
        spoil(&session);
        let step = session.step::<f32>(&[4, 4])?;
        Ok((step.out[2 * 4 * 8..].to_vec(), session))
    };
    let (right, _) = run(&|_| {})?;
    let word = |buffer: Option<&wgpu::Buffer>, offset, word: u32| {
        gpu.queue().write_buffer(buffer.expect("a paged cache"), offset, &word.to_ne_bytes());
    };
    for wrong in [u32::MAX, 65, 64, 62] {
        let (out, session) = run(&|session| word(Some(session.cache.device_lengths()), 0, wrong))?;
        let lengths = session.words(Some(session.cache.device_lengths()));
        if out != right || lengths[..2] != [64, 8] {
            return Err(format!("length {wrong}: lengths {lengths:?}, or the other sequence is another"));
        }
    }
    // A page past the last is cut off to the last, which is free.
    for wrong in [u32::MAX, 16] {
        let (out, _) = run(&|session| word(session.cache.device_pages(), 0, wrong))?;
        if out != right {
            return Err(format!("page {wrong}: the other sequence is another"));
        }
    }
    // Counts past the most are cut off.
    let (out, session) = run(&|session| {
        gpu.queue().write_buffer(&session.counts, 256, bytemuck::cast_slice(&[u32::MAX, 4]));
    })?;
    match out == right {
        true => session.check_untouched(),
        false => Err("counts past the most".into()),
    }
}

#[test]
fn wrong_words_on_the_device_are_cut_off() {
    wrong_words(gpu()).unwrap_or_else(|e| panic!("{e}"));
}

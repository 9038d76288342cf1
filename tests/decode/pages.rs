//! Sequences that share pages, forget, and fill the cache.

use crate::Checked;
use crate::session::{Session, Step, check_stored, out_strides};
use wgpu_attention::reference::{self, Got, Inputs, Kind, Tensors};
use wgpu_attention::{CacheShape, CacheStorage, DecodeShape, ElementType, Error, Gpu};
use wgpu_attention_testing::gpu;

type Text = Tensors<f32, f32>;

/// Random q, k and v of a sequence of this length.
pub(crate) fn text(shape: &DecodeShape, length: usize, seed: u64) -> Text {
    reference::random(shape.of_sequence(length, length), Kind::Normal, seed).expect("a valid call")
}

/// The first rows of one tensor `[heads, len, dim]`, then those of another.
fn joined(first: &[f32], second: &[f32], heads: usize, dim: usize, at: usize) -> Vec<f32> {
    let len = first.len() / (heads * dim);
    let row = |n: usize| if n / dim % len < at { first[n] } else { second[n] };
    (0..first.len()).map(row).collect()
}

/// A text that goes on as another after so many positions.
fn branch(shape: &DecodeShape, trunk: &Text, other: &Text, at: usize) -> Text {
    let (mut text, cache) = (trunk.clone(), &shape.cache);
    text.q = joined(&trunk.q, &other.q, shape.heads, cache.head_dim, at);
    text.k = joined(&trunk.k, &other.k, cache.kv_heads, cache.head_dim, at);
    text.v = joined(&trunk.v, &other.v, cache.kv_heads, cache.value_dim, at);
    text
}

/// Rows `from .. to` of a tensor `[heads, len, dim]`.
fn rows(x: &[f32], heads: usize, dim: usize, from: usize, to: usize) -> Vec<f32> {
    let len = x.len() / (heads * dim);
    (0..heads).flat_map(|head| x[(head * len + from) * dim..(head * len + to) * dim].to_vec()).collect()
}

/// The last `count` rows of a sequence whose text is that one, and the cache behind them.
pub(crate) fn check_last(
    session: &Session,
    step: &Step<f32>,
    b: usize,
    count: usize,
    text: &Text,
) -> Checked {
    let (shape, cache) = (&session.shape, &session.shape.cache);
    let length = session.cache.lengths()[b];
    let q = rows(&text.q, shape.heads, cache.head_dim, length - count, length);
    let k = rows(&text.k, cache.kv_heads, cache.head_dim, 0, length);
    let v = rows(&text.v, cache.kv_heads, cache.value_dim, 0, length);
    let (keys, values) = session.sequence::<f32>(b);
    check_stored(cache, &k, &keys, cache.head_dim)
        .and_then(|()| check_stored(cache, &v, &values, cache.value_dim))
        .map_err(|e| format!("sequence {b}, length {length}: the cache has another text: {e}"))?;
    let strides = out_strides(shape);
    let row = |n: usize| &step.out[strides.at(b, n / count, n % count)..][..cache.value_dim];
    let out: Vec<f32> = (0..shape.heads * count).flat_map(row).copied().collect();
    let report = reference::verify(
        shape.of_sequence(length, count),
        &Inputs::new(&q, &keys, &values),
        &shape.pattern(),
        Got::new(&out),
        Default::default(),
    );
    let report = report.map_err(|e| e.to_string())?;
    match report.pass {
        true => Ok(()),
        false => Err(format!("sequence {b}, length {length}: {report}")),
    }
}

fn session(gpu: &Gpu, shape: DecodeShape) -> Session {
    Session::new(gpu.kernels(), gpu.queue(), shape, None).expect("a valid session")
}

/// Feeds each sequence its text from its own length on, and checks what comes out.
fn go_on(session: &mut Session, counts: &[usize], texts: &[&Text]) -> Checked {
    let owned: Vec<Text> = texts.iter().map(|&text| text.clone()).collect();
    session.feed(counts, &owned);
    let step = session.step::<f32>(counts)?;
    for (b, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        check_last(session, &step, b, count, texts[b])?;
    }
    Ok(())
}

/// A trunk forks in the middle of a page: twice; all go on by themselves.
pub(crate) fn forks(gpu: &Gpu) -> Checked {
    forks_in(gpu, ElementType::F32.into())
}

/// The same in any storage that holds f32.
pub(crate) fn forks_in(gpu: &Gpu, storage: CacheStorage) -> Checked {
    let cache = CacheShape::new(3, 2, 64, 8).paged(8, 12).storage(storage);
    let shape = DecodeShape::new(cache, 4, 5).counts(true);
    let trunk = text(&shape, 40, 1);
    let others = [2, 3].map(|seed| branch(&shape, &trunk, &text(&shape, 40, seed), 13));
    let mut session = session(gpu, shape);
    let queue = session.queue.clone();
    for count in [5, 5, 3] {
        go_on(&mut session, &[count, 0, 0], &[&trunk; 3])?;
    }
    session.cache.fork(&queue, 0, 1).map_err(|e| e.to_string())?;
    session.cache.fork(&queue, 1, 2).map_err(|e| e.to_string())?;
    if session.cache.free_pages() != Some(10) {
        return Err(format!("{:?} free pages: nothing is shared", session.cache.free_pages()));
    }
    for counts in [[1, 1, 0], [1, 4, 0], [0, 0, 1], [5, 5, 5], [1, 0, 2]] {
        go_on(&mut session, &counts, &[&trunk, &others[0], &others[1]])?;
    }
    session.check_untouched()
}

#[test]
fn forks_go_on_by_themselves() {
    forks(gpu()).unwrap_or_else(|e| panic!("{e}"));
    forks_in(gpu(), CacheStorage::Int8).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn what_is_forgotten_is_written_again() {
    let f32s = CacheStorage::from(ElementType::F32);
    for (paged, storage) in
        [(false, f32s), (true, f32s), (false, CacheStorage::Int8), (true, CacheStorage::Int8)]
    {
        let cache = CacheShape::new(2, 2, 64, 8).storage(storage);
        let cache = if paged { cache.paged(8, 16) } else { cache };
        let shape = DecodeShape::new(cache, 4, 6).counts(true);
        let (trunk, other) = (text(&shape, 40, 1), text(&shape, 40, 2));
        let mut session = session(gpu(), shape);
        let queue = session.queue.clone();
        // Speculative decoding: six are tried, two of them stay.
        go_on(&mut session, &[6, 6], &[&trunk, &other]).unwrap();
        session.cache.truncate(&queue, 0, 2).unwrap();
        let kept = branch(&shape, &trunk, &other, 2);
        for counts in [[6, 0], [1, 6], [6, 2]] {
            go_on(&mut session, &counts, &[&kept, &other]).unwrap();
        }
        assert_eq!(session.cache.lengths(), [15, 14]);
        // A free sequence begins anew.
        session.cache.truncate(&queue, 1, 0).unwrap();
        for counts in [[1, 6], [0, 6]] {
            go_on(&mut session, &counts, &[&kept, &trunk]).unwrap();
        }
    }
}

#[test]
fn a_full_cache_is_an_error_before_anything_is_written() {
    let cache = CacheShape::new(2, 1, 16, 8).paged(4, 5);
    let shape = DecodeShape::new(cache, 2, 8).counts(true);
    let texts = [1, 2].map(|seed| text(&shape, 17, seed));
    let mut session = session(gpu(), shape);
    go_on(&mut session, &[8, 2], &[&texts[0], &texts[1]]).unwrap();
    go_on(&mut session, &[7, 0], &[&texts[0], &texts[1]]).unwrap();
    let (before, uploads) = (session.cache.lengths().to_vec(), session.cache.uploads());
    for (counts, words) in [([2, 0], "capacity is 16"), ([1, 3], "free pages is 0")] {
        let mut encoder = session.device.create_command_encoder(&Default::default());
        let error = session.cache.extend(&session.queue, &mut encoder, &counts).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }) && error.to_string().contains(words), "{error}");
        session.queue.submit([encoder.finish()]);
    }
    assert_eq!((session.cache.lengths(), session.cache.uploads()), (&before[..], uploads));
    session.check_untouched().unwrap();
    go_on(&mut session, &[1, 2], &[&texts[0], &texts[1]]).unwrap();
}

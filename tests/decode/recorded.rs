//! One recorded call for every token: nothing is planned, compiled, uploaded or allocated.

use crate::pages::{check_last, text};
use crate::session::{Session, Step, buffer};
use wgpu_attention::{CacheShape, DecodeShape};
use wgpu_attention_testing::{Counted, allocated};

#[test]
fn a_token_takes_nothing_but_its_commands() {
    let counted = Counted::new();
    let (gpu, kernels) = (&counted.gpu, counted.gpu.kernels());
    let cache = CacheShape::new(1, 2, 256, 16).paged(16, 16);
    let shape = DecodeShape::new(cache, 4, 1);
    let text = text(&shape, 200, 1);
    let mut session = Session::new(kernels, gpu.queue(), shape, None).expect("valid");
    session.cache.reserve(gpu.queue(), &[200]).expect("pages");
    // Tokens come from the device, as a model's projections do: [token, 256 bytes apart, row].
    let tokens = [(&text.q, 4), (&text.k, 2), (&text.v, 2)].map(|(x, heads)| {
        let words = (0..200).flat_map(|t| (0..heads * 16).map(move |n| (t, n)));
        let words: Vec<u32> = words.map(|(t, n)| x[(n / 16 * 200 + t) * 16 + n % 16].to_bits()).collect();
        (buffer(gpu.device(), gpu.queue(), &words), heads as u64 * 16 * 4)
    });
    let token = |session: &mut Session, n: u64| {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for ((from, bytes), to) in tokens.iter().zip([&session.q, &session.k, &session.v]) {
            encoder.copy_buffer_to_buffer(from, n * bytes, to, 256, *bytes);
        }
        session.cache.extend(gpu.queue(), &mut encoder, &[1]).expect("room");
        session.call.encode(&mut encoder);
        gpu.queue().submit([encoder.finish()]);
    };
    (0..20).for_each(|n| token(&mut session, n));
    let (before, uploads, compiled) = (allocated(gpu), session.cache.uploads(), counted.shaders());
    assert!(compiled > 0 && uploads > 0, "what is counted was there before");
    for n in 20..200 {
        token(&mut session, n);
        if n % 30 == 0 {
            assert_eq!(allocated(gpu), before, "token {n}");
        }
    }
    assert_eq!(allocated(gpu), before);
    assert_eq!((session.cache.uploads(), counted.shaders()), (uploads, compiled));
    let last: Step<f32> = session.outputs().expect("guards");
    check_last(&session, &last, 0, 1, &text).unwrap_or_else(|e| panic!("{e}"));
    session.check_untouched().unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn pages_are_told_only_where_one_begins() {
    let gpu = wgpu_attention_testing::gpu();
    let shape = DecodeShape::new(CacheShape::new(2, 1, 64, 8).paged(16, 8), 2, 1);
    let texts = [1, 2].map(|seed| text(&shape, 33, seed));
    let mut session = Session::new(gpu.kernels(), gpu.queue(), shape, None).expect("valid");
    let mut uploads = vec![];
    for n in 0..33 {
        session.feed(&[1, 1], &texts);
        session.step::<f32>(&[1, 1]).expect("a step");
        if session.cache.uploads() > uploads.iter().sum() {
            assert_eq!(n % 16, 0);
            uploads.push(session.cache.uploads() - uploads.iter().sum::<usize>());
        }
    }
    assert_eq!(uploads, [2; 3], "an entry per sequence and page");
}

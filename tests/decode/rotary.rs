//! Keys and queries that turn on the way: as the rotary kernel turns them, each at its own position.

use crate::Checked;
use crate::oracles::bits;
use crate::pages::text;
use crate::session::Session;
use half::f16;
use wgpu_attention::reference::Tensors;
use wgpu_attention::reference::layer::{Bounded, rotary};
use wgpu_attention::{
    CacheShape, CacheStorage, DecodeShape, Element, ElementType, Gpu, RotaryBuffers, RotaryPairs,
    RotaryShape, rotary_tables,
};
use wgpu_attention_testing::{gpu, read, storage};

/// Rows `[heads, len, dim]` that have turned at positions 0, 1, ...
fn turned(gpu: &Gpu, x: &[f32], shape: &RotaryShape, tables: &[Vec<f32>; 2]) -> Vec<f32> {
    let device = gpu.device();
    let [x, cos, sin] = [x, &tables[0], &tables[1]].map(|data| storage(device, data));
    let out = storage(device, &vec![0.0; shape.len_out()]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let plan = gpu.kernels().rotary(shape).expect("a valid shape");
    let call =
        plan.bind(RotaryBuffers::new(whole(&x), whole(&cos), whole(&sin), whole(&out))).expect("buffers");
    let mut encoder = device.create_command_encoder(&Default::default());
    call.encode(&mut encoder);
    gpu.queue().submit([encoder.finish()]);
    read(device, gpu.queue(), &out)
}

/// Two sequences in steps of their own, turned on the way and turned before: the same bits. What turns before is not edited.
pub(crate) fn check<KV: Element>(
    edited: &Gpu,
    storage: CacheStorage,
    dim: usize,
    pairs: RotaryPairs,
    page: Option<usize>,
) -> Checked {
    let cache = CacheShape::new(2, 2, 32, 12).storage(storage);
    let cache = page.map_or(cache, |page| cache.paged(page, 64 / page));
    let plain = DecodeShape::new(cache, 4, 5).counts(true);
    let shape = plain.rotary(Some((dim, pairs)));
    let tables = rotary_tables(cache.capacity, dim, 100.0);
    let wide = DecodeShape::new(CacheShape::new(2, 2, 32, 12), 4, 5);
    let texts: Vec<Tensors<f32, f32>> = (0..2).map(|b| text(&wide, 20, b)).collect();
    let turn = |x: &[f32], heads| {
        let own = RotaryShape::new(1, heads, 20, 12).rotary_dim(dim).pairs(pairs);
        let own_tables = tables.each_ref().map(|table| table[..20 * (dim / 2)].to_vec());
        turned(gpu(), x, &own, &own_tables)
    };
    let before: Vec<Tensors<f32, f32>> = texts
        .iter()
        .map(|text| {
            let mut text = text.clone();
            (text.q, text.k) = (turn(&text.q, 4), turn(&text.k, 2));
            text
        })
        .collect();
    let make = |gpu: &Gpu, shape, tables| {
        Session::new(gpu.kernels(), gpu.queue(), shape, tables).map_err(|e| e.to_string())
    };
    let (mut own, mut other) = (make(edited, shape, Some(&tables))?, make(gpu(), plain, None)?);
    for counts in [[5, 2], [1, 1], [0, 5], [5, 0], [1, 4]] {
        own.feed(&counts, &texts);
        other.feed(&counts, &before);
        let (own_step, other_step) = (own.step::<f32>(&counts)?, other.step::<f32>(&counts)?);
        if bits(&own_step.out) != bits(&other_step.out) {
            return Err(format!("rows turned on the way differ at lengths {:?}", own.cache.lengths()));
        }
    }
    for b in 0..2 {
        let (keys, values) = own.sequence::<KV>(b);
        let (other_keys, other_values) = other.sequence::<KV>(b);
        if bits(&keys) != bits(&other_keys) || bits(&values) != bits(&other_values) {
            return Err(format!("keys of sequence {b} turned otherwise"));
        }
    }
    own.check_untouched()
}

#[test]
fn keys_and_queries_turn_at_their_own_positions() {
    for (dim, page) in [(12, None), (6, Some(4)), (2, Some(16))] {
        for pairs in [RotaryPairs::HalfSplit, RotaryPairs::Interleaved] {
            let [single, half] = [ElementType::F32, ElementType::F16].map(CacheStorage::from);
            check::<f32>(gpu(), single, dim, pairs, page).unwrap_or_else(|e| panic!("{dim} {pairs:?}: {e}"));
            check::<f16>(gpu(), half, dim, pairs, page).unwrap_or_else(|e| panic!("{dim} {pairs:?}: {e}"));
            check::<f32>(gpu(), CacheStorage::Int8, dim, pairs, page)
                .unwrap_or_else(|e| panic!("{dim} {pairs:?}, int8: {e}"));
        }
    }
}

#[test]
fn turned_keys_are_within_the_bound_of_the_formula() {
    let cache = CacheShape::new(1, 2, 32, 12);
    let plain = DecodeShape::new(cache, 2, 5);
    let shape = plain.rotary(Some((8, RotaryPairs::HalfSplit)));
    let tables = rotary_tables(32, 8, 100.0);
    let text = text(&plain, 20, 7);
    let mut session = Session::new(gpu().kernels(), gpu().queue(), shape, Some(&tables)).unwrap();
    for _ in 0..4 {
        session.feed(&[5], std::slice::from_ref(&text));
        session.step::<f32>(&[5]).unwrap();
    }
    let wide = |x: &[f32]| Bounded::exact(&x.iter().map(|&x| x.into()).collect::<Vec<f64>>());
    let formula = RotaryShape::new(1, 2, 20, 12).rotary_dim(8).output(ElementType::F32);
    let [cos, sin] = tables.each_ref().map(|table| wide(&table[..20 * 4]));
    let expected = rotary(&formula, &wide(&text.k), &cos, &sin).unwrap();
    let got = session.sequence::<f32>(0).0.into_iter().map(f64::from).collect::<Vec<_>>();
    let found = expected.compare(got, 0.0);
    assert!(found.pass, "{found}");
}

//! Bad input: an error that names the argument, the need and what came, before anything is recorded.

use crate::session::Session;
use wgpu_attention::{
    AppendBuffers, AttendBuffers, CacheShape, DecodeShape, Error, Layout, Layouts, Options, RotaryPairs,
    Strides, rotary_tables,
};
use wgpu_attention_testing::{gpu, gpu_with, storage};

fn cache() -> CacheShape {
    CacheShape::new(2, 2, 64, 8)
}

#[test]
fn shapes_that_cannot_be() {
    let shape = DecodeShape::new(cache(), 4, 2);
    shape.check().unwrap();
    let of = |cache| DecodeShape::new(cache, 4, 2);
    let overlap = Layouts::default().out(Layout::Strided(Strides::new(64, 16, 4)));
    for (shape, words) in [
        (of(CacheShape::new(0, 2, 64, 8)), "batch: need at least 1, got 0"),
        (of(CacheShape::new(2, 2, 0, 8)), "capacity: need at least 1"),
        (of(CacheShape::new(2, 0, 64, 8)), "kv_heads: need at least 1"),
        (of(CacheShape::new(2, 2, 64, 577)), "head_dim: need 1 to 576, got 577"),
        (of(cache().value_dim(0)), "value_dim: need 1 to 512, got 0"),
        (of(cache().value_dim(513)), "value_dim: need 1 to 512, got 513"),
        (of(cache().paged(3, 10)), "page: need a power of two that divides the capacity (64), got 3"),
        (of(cache().paged(128, 10)), "page: need a power of two that divides"),
        (of(cache().paged(8, 0)), "pages: need at least 1"),
        (of(CacheShape::new(1 << 16, 8, 1 << 17, 64)), "keys needs"),
        (of(cache().paged(8, 1 << 30)), "keys needs"),
        (DecodeShape::new(cache(), 3, 2), "kv_heads: need a divisor of heads (3), got 2"),
        (DecodeShape::new(cache(), 4, 0), "new: need 1 to 64, got 0"),
        (DecodeShape::new(cache(), 4, 65), "new: need 1 to 64, got 65"),
        (
            shape.rotary(Some((3, RotaryPairs::HalfSplit))),
            "rotary: need an even number from 2 to head_dim (8), got 3",
        ),
        (shape.rotary(Some((10, RotaryPairs::HalfSplit))), "rotary"),
        (shape.scale(Some(f32::NAN)), "scale"),
        (shape.layouts(overlap), "out_layout"),
    ] {
        let error = gpu().kernels().decode(&shape).expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let error = gpu_with(Options::default().splits(2)).kernels().decode(&shape).unwrap_err().to_string();
    assert!(error.contains("splits: need 1 to 1"), "{error}");
    let error = gpu().kernels().kv_cache(&CacheShape::new(1, 3, 1 << 23, 128)).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }) && error.to_string().contains("the cache: keys"), "{error}");
}

#[test]
fn buffers_that_do_not_fit() {
    let shape = DecodeShape::new(cache(), 4, 2);
    let session = Session::new(gpu().kernels(), gpu().queue(), shape, None).unwrap();
    let (plan, cache) = (&session.plan, &session.cache);
    let device = gpu().device();
    let [q, k, v, out, small, table] =
        [shape.len_q(), shape.len_k(), shape.len_v(), shape.len_out(), 16, shape.cache.capacity * 4]
            .map(|len| storage(device, &vec![0.0; len]));
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let append = || AppendBuffers::new(whole(&k), whole(&v));
    let attend = || AttendBuffers::new(whole(&q), whole(&out));
    let values = whole(cache.values().expect("values of their own"));
    plan.bind(cache, append(), attend()).unwrap();
    for (buffers, words) in [
        (append().k(whole(&small)), "k: need 256 bytes"),
        (append().v(whole(&small)), "v: need 256 bytes"),
        (append().v(None), "v: need a buffer"),
        (append().counts(whole(&small)), "counts: need none"),
        (append().cos(whole(&table)), "cos: need none"),
        (append().k(whole(cache.keys())), "the cache's keys: need a buffer other than that of k"),
        (append().v(values.clone()), "the cache's values: need a buffer other than that of v"),
    ] {
        let error = plan.append(cache, buffers).expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    for (buffers, words) in [
        (attend().q(whole(&small)), "q: need 512 bytes"),
        (attend().out(whole(&small)), "out: need 512 bytes"),
        (attend().out(whole(&q)), "out: need a buffer other than that of q"),
        (attend().out(values), "out: need a buffer other than that of the cache's values"),
        (attend().lse(whole(&small)), "lse: need none"),
        (attend().sin(whole(&table)), "sin: need none"),
    ] {
        let error = plan.attend(cache, buffers).expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let other = gpu().kernels().kv_cache(&CacheShape::new(2, 2, 128, 8)).unwrap();
    let error = plan.append(&other, append()).unwrap_err().to_string();
    assert!(error.starts_with("cache: need one of the planned sizes"), "{error}");
    let wide = gpu().kernels().decode(&DecodeShape::new(shape.cache, 4, 64)).unwrap();
    assert!(wide.scratch_bytes() > plan.scratch_bytes());
    let error = wide.attend_with(cache, attend(), &plan.scratch().unwrap()).unwrap_err().to_string();
    assert!(error.contains("q: need") || error.contains("scratch: need"), "{error}");
    let error = plan.attend_with(cache, attend(), &small_scratch()).unwrap_err().to_string();
    assert!(error.starts_with("scratch: need"), "{error}");
    plan.attend_with(cache, attend(), &wide.scratch().unwrap()).unwrap();
}

/// That of a smaller plan.
fn small_scratch() -> wgpu_attention::DecodeScratch {
    let shape = DecodeShape::new(CacheShape::new(1, 1, 64, 8), 1, 1);
    gpu().kernels().decode(&shape).unwrap().scratch().unwrap()
}

#[test]
fn what_the_shape_asks_for_must_be_there() {
    let shape =
        DecodeShape::new(cache(), 4, 2).rotary(Some((8, RotaryPairs::HalfSplit))).counts(true).lse(true);
    let tables = rotary_tables(64, 8, 100.0);
    let session = Session::new(gpu().kernels(), gpu().queue(), shape, Some(&tables)).unwrap();
    let [cos, sin] = tables.each_ref().map(|table| storage(gpu().device(), table));
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let (k, v, q, out) = (whole(&session.k), whole(&session.v), whole(&session.q), whole(&session.out));
    let append = || AppendBuffers::new(k.clone(), v.clone());
    let attend = || AttendBuffers::new(q.clone(), out.clone()).cos(whole(&cos)).sin(whole(&sin));
    for (buffers, words) in [
        (append(), "cos: need a buffer"),
        (append().cos(whole(&cos)), "sin: need a buffer"),
        (append().cos(whole(&cos)).sin(whole(&sin)), "counts: need a buffer"),
    ] {
        let error = session.plan.append(&session.cache, buffers).expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    for (buffers, words) in [
        (attend(), "counts: need a buffer"),
        (attend().counts(whole(&session.counts)), "lse: need a buffer"),
        (attend().cos(whole(&session.lse)), "cos: need 1024 bytes"),
    ] {
        let error = session.plan.attend(&session.cache, buffers).expect_err(words).to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

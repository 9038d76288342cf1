//! The self-test of plans of decoding and of packed sequences: passes for every kind on a device that is right, and finds one that is not.

use wgpu_attention::{
    CacheShape, CacheStorage, DecodeShape, ElementType, Gpu, Layout, Layouts, PackedShape, RotaryPairs,
    SelfTest, Storage, Strides,
};

use super::gpu;
use super::self_test::{faulty, refused};

use ElementType::{Bf16, F16, F32};

fn passes(shape: &DecodeShape) {
    let plan = gpu().kernels().decode(shape).unwrap();
    assert_eq!(gpu().self_test(&plan).unwrap(), SelfTest::Passed, "{shape:?}");
}

fn packed_passes(shape: &PackedShape) {
    let plan = gpu().kernels().packed_sequences(shape).unwrap();
    assert_eq!(gpu().self_test(&plan).unwrap(), SelfTest::Passed, "{shape:?}");
}

/// Grouped heads, one new position of each of 4 sequences.
fn cache(dim: usize) -> CacheShape {
    CacheShape::new(4, 2, 4096, dim)
}

#[test]
fn storages_sizes_and_pages_of_decoding_pass() {
    let storages: [CacheStorage; 4] = [F32.into(), F16.into(), Bf16.into(), CacheStorage::Int8];
    for ((storage, dim), page) in storages.into_iter().zip([7, 64, 16, 36]).zip([1, 16, 256, 64]) {
        let cache = cache(dim).value_dim(20).storage(storage);
        passes(&DecodeShape::new(cache, 6, 1));
        passes(&DecodeShape::new(cache.paged(page, 4 * 4096 / page), 2, 4));
    }
    for (input, output) in [(F16, F16), (F16, F32), (Bf16, Bf16)] {
        passes(&DecodeShape::new(cache(64).storage(input), 4, 2).input(input).output(output));
    }
    // A page as long as the cache; one sequence of one position.
    passes(&DecodeShape::new(cache(16).paged(4096, 4), 4, 1));
    passes(&DecodeShape::new(CacheShape::new(1, 1, 1, 4), 1, 1));
}

#[test]
fn steps_of_every_kind_pass() {
    let shape = DecodeShape::new(cache(32), 8, 64).counts(true).lse(true);
    passes(&shape);
    passes(&shape.window(Some(500)).sinks(4));
    passes(&DecodeShape::packed(cache(32).paged(16, 500), 8, 200).lse(true));
    passes(&DecodeShape::packed(cache(12), 2, 1));
    passes(&DecodeShape::new(cache(32), 2, 1).scale(Some(0.0)));
    let latent = CacheShape::new(4, 1, 1024, 96).values_in_keys(32..96).storage(F16).paged(32, 40);
    passes(&DecodeShape::new(latent, 16, 1).rotary(Some((32, RotaryPairs::Interleaved))));
    let odd = |dim: isize| Layout::Strided(Strides::new(200 * dim, 5 * dim, dim).offset(1));
    let layouts = Layouts::all(Layout::Blhd).q(odd(33)).k(odd(33));
    passes(&DecodeShape::new(cache(32), 2, 3).layouts(layouts));
}

#[test]
fn rows_that_turn_pass() {
    for (pairs, storage) in
        [(RotaryPairs::HalfSplit, F16.into()), (RotaryPairs::Interleaved, CacheStorage::Int8)]
    {
        for dim in [2, 12, 32] {
            passes(
                &DecodeShape::new(cache(32).storage(storage), 4, 5).counts(true).rotary(Some((dim, pairs))),
            );
        }
    }
}

#[test]
fn packed_sequences_pass() {
    let shape = PackedShape::new(16, 8, [300, 5000], 32).kv_heads(2);
    packed_passes(&shape.lse(true));
    packed_passes(&shape.after(None));
    packed_passes(&shape.before(Some(400)).after(Some(7)).sinks(2));
    packed_passes(&shape.value_dim(7).storage(Storage::all(F16).out(F32)));
    packed_passes(&PackedShape::new(1, 1, [1, 1], 3).storage(Storage::all(Bf16)));
    packed_passes(&shape.layouts(Layouts::all(Layout::Bhld)));
}

/// Asserts that a device whose compiler makes this of that is refused, and that it is not by those who say so.
fn decode_refused(shape: &DecodeShape, that: &'static str, this: &'static str, evidence: &str) {
    let gpu = faulty(that, this);
    let plan = gpu.kernels().decode(shape).unwrap();
    let said = refused(gpu.check_plan(&plan), evidence);
    assert!(said.contains("kernels of decoding: FAIL, "), "{said}");
    assert_eq!(refused(gpu.check_plan(&plan), evidence), said, "what was found is kept");
    gpu.self_tests(false).check_plan(&plan).unwrap();
}

#[test]
fn wrong_decoding_is_refused_with_evidence() {
    let plain = DecodeShape::new(cache(16).value_dim(20), 4, 2).lse(true);
    let paged = DecodeShape::new(cache(12).paged(16, 1024), 2, 1);
    for (shape, that, this, evidence) in [
        (plain, "l[g] *= factor;", "", "values: FAIL"),
        (plain, "at.kv_head = place.kv_head;", "at.kv_head = 0u;", "counts of keys: FAIL"),
        (plain, "return (vec4(key) <= own +", "return (vec4(key) < own +", "counts of keys: FAIL"),
        (
            plain,
            "queries[4u * item + e] = x[e] * params.kernel.q_scale;",
            "queries[4u * item + e] = x[e];",
            "values: FAIL",
        ),
        (
            paged,
            "pages[batch * (params.cache.capacity / PAGE) + position / PAGE]",
            "pages[position / PAGE]",
            "appended keys",
        ),
        (
            paged,
            "+ head) * PAGE + position % PAGE;",
            "+ head) * PAGE + (position ^ 1u) % PAGE;",
            "appended keys",
        ),
    ] {
        decode_refused(&shape, that, this, evidence);
    }
}

#[test]
fn wrong_cached_rows_are_refused_with_evidence() {
    let int8 = DecodeShape::new(cache(16).storage(CacheStorage::Int8), 4, 1);
    let turning = DecodeShape::new(cache(16), 4, 3).counts(true).rotary(Some((12, RotaryPairs::HalfSplit)));
    let packed = DecodeShape::packed(cache(16), 2, 40);
    let shift = "let table_at = position * (ROTARY_DIM / 2u);";
    for (shape, that, this, evidence) in [
        (int8, "clamp(round(x),", "clamp(trunc(x),", "appended keys"),
        (int8, "(keys[at / 4u]); }", "(keys[0]); }", "values: FAIL"),
        (turning, shift, "let table_at = (position + 1u) * (ROTARY_DIM / 2u);", "appended keys"),
        (turning, "return new_row.number; }", "return new_row.number ^ 1u; }", "FAIL"),
        (
            turning,
            "return min(counts[batch], params.cache.most_new);",
            "return params.cache.most_new;",
            "length of sequence 1",
        ),
        (turning, "    if (!own.is_new) { return; }", "", "a row of the cache that is not new was written"),
        (
            int8,
            "return (bitcast<u32>(scale) + 0x80u) & 0xffffff00u;",
            "return bitcast<u32>(scale);",
            "the row's scale",
        ),
        (
            packed,
            "let is_new = low < params.cache.batch && t < count_of(low);",
            "low = min(low, params.cache.batch - 1u); let is_new = true;",
            "appended keys",
        ),
    ] {
        decode_refused(&shape, that, this, evidence);
    }
}

#[test]
fn wrong_packed_sequences_are_refused_with_evidence() {
    let shape = PackedShape::new(4, 2, [20, 300], 16).lse(true);
    for (that, this, evidence) in [
        ("return min(k_offsets[batch], params.cache.capacity);", "return 0u;", "counts of keys: FAIL"),
        (
            "head * params.v.head + (first_key(batch) + position)",
            "head * params.v.head + (first_key(batch + 1u) + position)",
            "FAIL",
        ),
        (
            "fn first_query(batch: u32) -> u32 { return offset_of(batch) * params.q.row; }",
            "fn first_query(batch: u32) -> u32 { return 0u; }",
            "sequence 1, planted keys: FAIL",
        ),
    ] {
        let gpu = faulty(that, this);
        let plan = gpu.kernels().packed_sequences(&shape).unwrap();
        let said = refused(gpu.check_plan(&plan), evidence);
        assert!(said.contains("the kernels of packed sequences: FAIL, "), "{said}");
        gpu.self_tests(false).check_plan(&plan).unwrap();
    }
}

#[test]
fn what_is_right_is_not_refused() {
    let tested: Gpu = gpu().clone().self_tests(true);
    let plan = tested.kernels().decode(&DecodeShape::new(cache(16), 4, 2)).unwrap();
    tested.check_plan(&plan).unwrap();
    let plan = tested.kernels().packed_sequences(&PackedShape::new(4, 2, [20, 300], 16)).unwrap();
    tested.check_plan(&plan).unwrap();
}

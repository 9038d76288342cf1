//! Cases of decoding with a key cache: new keys appended to an empty cache, their queries attended.

use anyhow::{Context, Result, ensure};
use wgpu_attention::ElementType::{self, Bf16, F16, F32};
use wgpu_attention::reference::{self, Got, Kind};
use wgpu_attention::{
    AppendBuffers, AttendBuffers, CacheShape, CacheStorage, DecodeShape, Layout, Layouts, PackedBuffers,
    PackedShape, RotaryAngles, RotaryPairs, RotaryScaling, RotaryShape, RotaryTablesBuffers, Storage, Yarn,
    rotary_tables,
};

use std::ops::Range;

use crate::bench::Bench;
use crate::cases::{Case, Set};
use crate::tensor::{Tensor, normal};

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for element in [F32, F16, Bf16] {
        for (heads, new, dim, window) in [(2, 3, 8, None), (4, 7, 20, Some(2)), (8, 64, 64, None)] {
            let cache = CacheShape::new(1, 2, 300, dim).storage(element);
            let shape = DecodeShape::new(cache, heads, new).window(window).sinks(1);
            let set = match (new, element) {
                (3, F32) => Set::Tiny,
                (7, _) => Set::Small,
                _ => Set::Full,
            };
            let run = Box::new(move |bench: &Bench| attend(bench, &shape));
            let name = format!("{heads} heads, {new} new, d {dim}, window {window:?}");
            cases.push(Case { kernel: "decode", element, name, set, run });
        }
    }
    let run = Box::new(|bench: &Bench| quantized(bench));
    let name = "int8, 4 heads, 7 new, d 20".to_owned();
    cases.push(Case { kernel: "decode", element: F32, name, set: Set::Small, run });
    let run = Box::new(|bench: &Bench| packed(bench));
    let name = "packed rows of 3 sequences".to_owned();
    cases.push(Case { kernel: "decode", element: F32, name, set: Set::Small, run });
    for element in [F32, F16] {
        let run = Box::new(move |bench: &Bench| latent(bench, element));
        let name = "values in keys, d 576".to_owned();
        cases.push(Case { kernel: "decode", element, name, set: Set::Small, run });
        let run = Box::new(move |bench: &Bench| own_keys(bench, element));
        let name = "packed keys of 3 sequences".to_owned();
        cases.push(Case { kernel: "decode", element, name, set: Set::Small, run });
    }
    for (name, first) in [("tables from position 0", 0), ("tables from position 1,000,000", 1_000_000)] {
        let run = Box::new(move |bench: &Bench| tables(bench, first));
        cases.push(Case { kernel: "rotary", element: F32, name: name.to_owned(), set: Set::Small, run });
    }
    let run = Box::new(|bench: &Bench| turned(bench));
    let name = "keys that turn".to_owned();
    cases.push(Case { kernel: "decode", element: F32, name, set: Set::Small, run });
    cases
}

/// k and v of the cache's type in f32: exact.
fn attend(bench: &Bench, shape: &DecodeShape) -> Result<f64> {
    let (dim, heads, new) = (shape.cache.head_dim, shape.heads, shape.new);
    let f32s = |stream, len: usize, element: ElementType| -> Vec<f32> {
        normal(stream, len, element).into_iter().map(|x| x as f32).collect()
    };
    let (q, out) = (f32s(1, heads * new * dim, F32), Tensor::output(bench, heads * new * dim, F32));
    let [k, v] = [2, 3].map(|stream| f32s(stream, 2 * new * dim, shape.cache.storage.element()));
    let [q_tensor, k_tensor, v_tensor] = [&q, &k, &v].map(|x| Tensor::elements(bench, x));
    let cache = bench.kernels().kv_cache(&shape.cache)?;
    let append = AppendBuffers::new(k_tensor.binding(), v_tensor.binding());
    let attend = AttendBuffers::new(q_tensor.binding(), out.binding());
    let call = bench.kernels().decode(shape)?.bind(&cache, append, attend)?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
    let got: Vec<f32> = bytemuck::pod_collect_to_vec(out.take(&bytes[0])?);
    // The same numbers, whatever they are stored in.
    let attention = DecodeShape::new(CacheShape::new(1, 2, 300, dim), heads, new).of_sequence(new, new);
    let inputs = reference::Inputs::new(&q, &k, &v);
    let report =
        reference::verify(&attention, &inputs, &shape.pattern(), Got::new(&got), Default::default())?;
    ensure!(report.pass, "{report}");
    Ok(report.ratio())
}

/// A cache of int8: rows as they must be quantised, and attended as they are then.
fn quantized(bench: &Bench) -> Result<f64> {
    let cache = CacheShape::new(1, 2, 300, 20).storage(CacheStorage::Int8);
    let shape = DecodeShape::new(cache, 4, 7);
    let text = reference::random::<f32, f32>(shape.of_sequence(7, 7), Kind::Normal, 1)?;
    let [q, k, v] = [&text.q, &text.k, &text.v].map(|x| Tensor::elements(bench, x));
    let out = Tensor::output(bench, shape.len_out(), F32);
    let cache = bench.kernels().kv_cache(&shape.cache)?;
    let values = cache.values().context("values of their own")?;
    let append = AppendBuffers::new(k.binding(), v.binding());
    let call = bench.kernels().decode(&shape)?.bind(
        &cache,
        append,
        AttendBuffers::new(q.binding(), out.binding()),
    )?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer, cache.keys(), values])?;
    let mut stored = [vec![], vec![]];
    for (n, given) in [&text.k, &text.v].into_iter().enumerate() {
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes[n + 1]);
        for (row, x) in given.chunks(20).enumerate() {
            let (scale, got) = reference::int8_row(&words[(row / 7 * 300 + row % 7) * 6..], 20);
            ensure!(scale == reference::int8_scale(x), "row {row} has the scale {scale}");
            let most = reference::INT8_STEPS * f64::from(scale);
            let near = x.iter().zip(&got).all(|(x, got)| (f64::from(*x) - f64::from(*got)).abs() <= most);
            ensure!(near, "row {row}: {x:?} is stored as {got:?}");
            stored[n].extend(got);
        }
    }
    let got: Vec<f32> = bytemuck::pod_collect_to_vec(out.take(&bytes[0])?);
    let inputs = reference::Inputs::new(&text.q, &stored[0], &stored[1]);
    let attention = shape.of_sequence(7, 7);
    let report =
        reference::verify(&attention, &inputs, &shape.pattern(), Got::new(&got), Default::default())?;
    ensure!(report.pass, "{report}");
    Ok(report.ratio())
}

/// Three sequences share the rows of a call: 4, none and 7 of them; the last row is nobody's.
fn packed(bench: &Bench) -> Result<f64> {
    let shape = DecodeShape::packed(CacheShape::new(3, 2, 300, 20), 4, 12);
    let text = reference::random::<f32, f32>(shape.of_sequence(12, 12), Kind::Normal, 1)?;
    let [q, k, v] = [&text.q, &text.k, &text.v].map(|x| Tensor::elements(bench, x));
    let (offsets, out) = (Tensor::words(bench, &[0, 4, 4, 11]), Tensor::output(bench, shape.len_out(), F32));
    let cache = bench.kernels().kv_cache(&shape.cache)?;
    let append = AppendBuffers::new(k.binding(), v.binding()).offsets(offsets.binding());
    let attend = AttendBuffers::new(q.binding(), out.binding()).offsets(offsets.binding());
    let call = bench.kernels().decode(&shape)?.bind(&cache, append, attend)?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
    let all: Vec<f32> = bytemuck::pod_collect_to_vec(out.take(&bytes[0])?);
    ensure!(all[11 * 4 * 20..].iter().all(|&x| x == 0.0), "the row that is nobody's is not empty");
    let mut worst = 0f64;
    for (first, count) in [(0, 4), (4, 7)] {
        // [rows, heads, d], of one sequence alone.
        let rows = |x: &[f32], heads: usize| x[first * heads * 20..(first + count) * heads * 20].to_vec();
        let (q, k, v) = (rows(&text.q, 4), rows(&text.k, 2), rows(&text.v, 2));
        let attention = shape.of_sequence(count, count).layouts(Layouts::all(Layout::Blhd));
        let (inputs, got) = (reference::Inputs::new(&q, &k, &v), rows(&all, 4));
        let report =
            reference::verify(&attention, &inputs, &shape.pattern(), Got::new(&got), Default::default())?;
        ensure!(report.pass, "rows from {first} on: {report}");
        worst = worst.max(report.ratio());
    }
    Ok(worst)
}

/// Latent rows of which values are a part, 576 elements each.
fn latent(bench: &Bench, element: ElementType) -> Result<f64> {
    let cache = CacheShape::new(1, 1, 64, 576).values_in_keys(64..576).storage(element);
    let shape = DecodeShape::new(cache, 5, 7);
    let draw = |stream, len| -> Vec<f32> { normal(stream, len, element).iter().map(|&x| x as f32).collect() };
    let (q, k) = (draw(1, 5 * 7 * 576), draw(2, 7 * 576));
    let [q_tensor, k_tensor] = [&q, &k].map(|x| Tensor::elements(bench, x));
    let out = Tensor::output(bench, shape.len_out(), F32);
    let cache = bench.kernels().kv_cache(&shape.cache)?;
    let attend = AttendBuffers::new(q_tensor.binding(), out.binding());
    let append = AppendBuffers::new(k_tensor.binding(), None);
    let call = bench.kernels().decode(&shape)?.bind(&cache, append, attend)?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
    let got: Vec<f32> = bytemuck::pod_collect_to_vec(out.take(&bytes[0])?);
    let v: Vec<f32> = k.chunks(576).flat_map(|row| &row[64..]).copied().collect();
    // The same numbers, whatever they are stored in.
    let attention = DecodeShape::new(shape.cache.storage(F32), 5, 7).of_sequence(7, 7);
    let inputs = reference::Inputs::new(&q, &k, &v);
    let report =
        reference::verify(&attention, &inputs, &shape.pattern(), Got::new(&got), Default::default())?;
    ensure!(report.pass, "{report}");
    Ok(report.ratio())
}

/// Three sequences of 4, none and 7 queries over 9, 5 and 6 keys that are the caller's.
fn own_keys(bench: &Bench, element: ElementType) -> Result<f64> {
    let shape = PackedShape::new(3, 4, [12, 20], 20).kv_heads(2).storage(Storage::default().kv(element));
    let draw = |stream, len| normal(stream, len, element);
    let (q, k, v) = (draw(1, 12 * 4 * 20), draw(2, 20 * 2 * 20), draw(3, 20 * 2 * 20));
    let (q_tensor, k_tensor) = (Tensor::of(bench, &q, F32), Tensor::of(bench, &k, element));
    let (v_tensor, out) = (Tensor::of(bench, &v, element), Tensor::output(bench, shape.len_out(), F32));
    let [q_offsets, k_offsets] = [[0, 4, 4, 11], [0, 9, 14, 20]].map(|ends| Tensor::words(bench, &ends));
    let call = bench.kernels().packed_sequences(&shape)?.bind(PackedBuffers::new(
        q_tensor.binding(),
        k_tensor.binding(),
        v_tensor.binding(),
        q_offsets.binding(),
        k_offsets.binding(),
        out.binding(),
    ))?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
    let all: Vec<f32> = bytemuck::pod_collect_to_vec(out.take(&bytes[0])?);
    ensure!(all[11 * 4 * 20..].iter().all(|&x| x == 0.0), "the row that is nobody's is not empty");
    let mut worst = 0f64;
    for (queries, keys) in [(0..4, 0..9), (4..11, 14..20)] {
        // [rows, heads, d], of one sequence alone; the same numbers, whatever they are stored in.
        let rows = |x: &[f64], heads: usize, rows: &Range<usize>| -> Vec<f32> {
            x[rows.start * heads * 20..rows.end * heads * 20].iter().map(|&x| x as f32).collect()
        };
        let (q, k, v) = (rows(&q, 4, &queries), rows(&k, 2, &keys), rows(&v, 2, &keys));
        let attention = shape.storage(Storage::default()).of_sequence(queries.len(), keys.len());
        let attention = attention.layouts(Layouts::all(Layout::Blhd));
        let got = &all[queries.start * 80..queries.end * 80];
        let inputs = reference::Inputs::new(&q, &k, &v);
        let report =
            reference::verify(&attention, &inputs, &shape.pattern(), Got::new(got), Default::default())?;
        ensure!(report.pass, "queries {queries:?}: {report}");
        worst = worst.max(report.ratio());
    }
    Ok(worst)
}

/// Tables of YaRN.
fn tables(bench: &Bench, first: usize) -> Result<f64> {
    let angles = RotaryAngles::new(64, 1e4).scaling(RotaryScaling::Yarn(Yarn::new(40.0, 4096)));
    let [cos, sin] = [(); 2].map(|()| Tensor::output(bench, 50 * 32, F32));
    let plan = bench.kernels().rotary_tables(&angles)?;
    let call = plan.bind(first, 50, RotaryTablesBuffers::new(cos.binding(), sin.binding()))?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&cos.buffer, &sin.buffer])?;
    let expected = reference::layer::rotary_tables(&angles, first, 50)?;
    let mut worst = 0f64;
    for ((table, bytes), expected) in [cos, sin].iter().zip(&bytes).zip(expected) {
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(table.take(bytes)?);
        let found = expected.compare(got.into_iter().map(f64::from).collect::<Vec<_>>(), 0.0);
        ensure!(found.pass, "{found}");
        worst = worst.max(found.worst.map_or(0.0, |worst| worst.ratio));
    }
    Ok(worst)
}

/// Keys in the cache, after they have turned.
fn turned(bench: &Bench) -> Result<f64> {
    let shape =
        DecodeShape::new(CacheShape::new(1, 2, 300, 12), 2, 5).rotary(Some((8, RotaryPairs::HalfSplit)));
    let text = reference::random::<f32, f32>(shape.of_sequence(5, 5), Kind::Normal, 1)?;
    let [q, k, v] = [&text.q, &text.k, &text.v].map(|x| Tensor::elements(bench, x));
    let tables = rotary_tables(300, 8, 100.0);
    let [cos, sin] = tables.each_ref().map(|table| Tensor::elements(bench, table));
    let out = Tensor::output(bench, shape.len_out(), F32);
    let cache = bench.kernels().kv_cache(&shape.cache)?;
    let append = AppendBuffers::new(k.binding(), v.binding()).cos(cos.binding()).sin(sin.binding());
    let attend = AttendBuffers::new(q.binding(), out.binding()).cos(cos.binding()).sin(sin.binding());
    let call = bench.kernels().decode(&shape)?.bind(&cache, append, attend)?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[cache.keys()])?;
    let rows: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes[0]);
    let got: Vec<f64> =
        [0, 300].iter().flat_map(|head| &rows[head * 12..][..5 * 12]).map(|&x| f64::from(x)).collect();
    let wide = |x: &[f32]| {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        reference::layer::Bounded::exact(&x)
    };
    let formula = RotaryShape::new(1, 2, 5, 12).rotary_dim(8);
    let expected = reference::layer::rotary(
        &formula,
        &wide(&text.k),
        &wide(&tables[0][..5 * 4]),
        &wide(&tables[1][..5 * 4]),
    )?;
    let found = expected.compare(got, 0.0);
    ensure!(found.pass, "{found}");
    Ok(found.worst.map_or(0.0, |worst| worst.ratio))
}

//! Dropout: exactly the weights that the generator says, whatever the cut; the bound; what a seed costs; bad input.

use crate::support::{
    Case, Cut, PATTERNS, bound_of_parts, bound_on, count_of_parts, count_on, cut, gather_of_parts, gather_on,
    gpu, gpu_with, kinds_of_tile, picked, run,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::{Kind, Tensors};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    AttentionShape, Causal, Dropout, Full, Gpu, KernelPath, Kernels, Options, Outputs, Parts, Score, Sinks,
    Site, Storage,
};

const KINDS: [TileKind; 2] = [TileKind::Staged, TileKind::Direct];

fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 67, 16).kv_heads(2).kv_len(130)
}

fn dropped(rate: f32) -> Case {
    Case::new(shape().score(Score::new().dropout(rate, 11)))
}

/// Count, gather and bound, under the tile that is dropout's turn.
fn right(case: &Case, parts: &Parts) {
    for kind in kinds_of_tile(case.variant().as_deref()) {
        let gpu = gpu_with(case.options.tile_kind(kind));
        let checked = count_of_parts(&gpu, case, parts)
            .and(gather_of_parts(&gpu, case, parts))
            .and(bound_of_parts(&gpu, case, parts));
        checked.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
}

#[test]
fn every_pattern() {
    for (n, (name, _)) in PATTERNS.iter().enumerate() {
        let rate = [0.1, 0.5, 0.9][n % 3];
        let case = dropped(rate).pattern(picked(name, &shape().extent(), n as u64)).seed(n as u64);
        right(&case, &case.parts());
    }
}

#[test]
fn parts_orders_and_splits() {
    let case = dropped(0.3).pattern(picked("blocks_per_head", &shape().extent(), 3));
    for how in Cut::ALL {
        right(&case, &cut(&case, how, 1));
    }
    let strided = dropped(0.3).pattern(picked("strided", &shape().extent(), 1));
    let lowered = Parts::lower(strided.pattern.as_dyn(), strided.grid()).expect("a pattern of the crate");
    right(&strided, &lowered);
    let split = case.options(Options::default().splits(3));
    right(&split, &split.parts());
}

/// The heads of a group are rows of one tile: each has decisions of its own.
#[test]
fn few_queries() {
    for (q_len, heads) in [(1, 8), (3, 12)] {
        let shape = AttentionShape::new(2, heads, q_len, 16).kv_heads(2).kv_len(200);
        let case = Case::new(shape.score(Score::new().dropout(0.4, 5)));
        right(&case, &case.parts());
        let split = case.pattern(Causal).options(Options::default().splits(2));
        right(&split, &split.parts());
    }
}

#[test]
fn sizes_types_and_terms() {
    for storage in [Storage::all(F16), Storage::all(Bf16), Storage::all(F16).out(F32)] {
        let case = dropped(0.25).storage(storage).pattern(Causal);
        bound_on(gpu(), &case).unwrap_or_else(|e| panic!("{e}"));
    }
    for (head_dim, value_dim) in [(7, 5), (1, 64), (130, 140)] {
        let shape = AttentionShape::new(1, 2, 40, head_dim).value_dim(value_dim).kv_len(50);
        let case = Case::new(shape.score(Score::new().dropout(0.25, 1))).pattern(Causal);
        for kind in kinds_of_tile(None) {
            bound_on(&gpu_with(case.options.tile_kind(kind)), &case).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    for score in [Score::new().softcap(20.0).alibi(), Score::new().with(Sinks), Score::new().scale(3.0)] {
        for kind in [Kind::Normal, Kind::Peaky, Kind::Rising] {
            let case = dropped(0.6).score(score.clone().dropout(0.6, 2)).kind(kind).pattern(Causal);
            bound_on(gpu(), &case).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    // Next to nothing dropped, and next to everything.
    for rate in [1e-9, 1.0 - 1.0 / 4096.0] {
        let case = dropped(rate).pattern(Causal);
        count_on(gpu(), &case)
            .and(gather_on(gpu(), &case))
            .and(bound_on(gpu(), &case))
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

/// q = 0 and v the unit vectors: n (1 - rate) out is keep, pair by pair, against the generator and not against the reference.
#[test]
fn each_pair_by_itself() {
    let keys = 150;
    let shape = AttentionShape::new(2, 3, 70, 4).kv_heads(1).kv_len(keys).value_dim(keys);
    let dropout = Dropout::new(0.37, 0x1234_5678_9abc_def0);
    for kind in KINDS {
        let gpu = gpu_with(Options::default().tile_kind(kind));
        for pattern in ["full", "causal", "bigbird", "blocks_per_head"] {
            let case = Case::new(shape.score(Score::new().with(dropout))).pattern(picked(
                pattern,
                &shape.extent(),
                4,
            ));
            let mut tensors: Tensors<f32, f32> = case.tensors();
            tensors.q.fill(0.0);
            for (n, v) in tensors.v.iter_mut().enumerate() {
                *v = f32::from(u8::from(n % keys == n / keys % keys));
            }
            let got = run::<f32, f32, f32>(&gpu, &case.attention, &tensors.inputs(), &case.parts(), true);
            let got = got.unwrap_or_else(|e| panic!("{e}\n{case}"));
            for row in 0..shape.len_lse() {
                let (batch, head, i) = (row / 70 / 3, row / 70 % 3, row % 70);
                let site = Site { batch, head, extent: shape.extent() };
                let seen: Vec<bool> = (0..keys).map(|j| case.pattern.as_dyn().keep(&site, i, j)).collect();
                let n = seen.iter().filter(|&&seen| seen).count() as f32;
                for (j, seen) in seen.into_iter().enumerate() {
                    let share = got.out[row * keys + j] * n * (1.0 - 0.37);
                    let want = seen && dropout.keeps(batch, head, i, j);
                    let at = format!("{kind:?}, {pattern}: batch {batch}, head {head}, query {i}, key {j}");
                    assert!((share - f32::from(u8::from(want))).abs() < 1e-5, "{at}: {share}, not {want}");
                }
                let lse = got.lse.as_ref().expect("asked for")[row];
                assert!(n == 0.0 || (lse - n.ln()).abs() < 1e-5, "lse has dropped weights, too: {lse}");
            }
        }
    }
}

/// Nothing of lse and of the state follows from dropout.
#[test]
fn lse_is_that_of_all_weights() {
    let outputs = Outputs::default().lse().state();
    let tensors: Tensors<f32, f32> = dropped(0.5).tensors();
    let of = |dropout| {
        let attention = shape().score(Score::new().softcap(3.0).with(dropout));
        gpu().run::<f32, f32, f32>(attention, &tensors.inputs(), &Causal, outputs).expect("a good call")
    };
    let (none, some) = (of(Dropout::new(0.0, 0)), of(Dropout::new(0.7, 3)));
    assert_eq!((&none.lse, &none.state), (&some.lse, &some.state));
    assert_ne!(none.out, some.out);
}

/// A value that is not finite shows in every row that attends it, its weight dropped or not, and in no other.
#[test]
fn strange_values_show_though_they_are_dropped() {
    let dropout = Dropout::new(0.5, 9);
    for kind in KINDS {
        let gpu = gpu_with(Options::default().tile_kind(kind));
        for (pattern, x) in [("full", f32::NAN), ("causal", f32::NAN), ("mask", f32::INFINITY)] {
            let case =
                dropped(0.5).score(Score::new().with(dropout)).pattern(picked(pattern, &shape().extent(), 2));
            let mut tensors: Tensors<f32, f32> = case.tensors();
            let key = 60;
            for head in 0..4 {
                tensors.v[(head * 130 + key) * 16 + 3] = x;
            }
            let got = run::<f32, f32, f32>(&gpu, &case.attention, &tensors.inputs(), &case.parts(), true);
            let got = got.unwrap_or_else(|e| panic!("{e}\n{case}"));
            let mut dropped_too = 0;
            for row in 0..shape().len_lse() {
                let (batch, head, i) = (row / 67 / 4, row / 67 % 4, row % 67);
                let site = Site { batch, head, extent: shape().extent() };
                let attends = case.pattern.as_dyn().keep(&site, i, key);
                dropped_too += usize::from(attends && !dropout.keeps(batch, head, i, key));
                let out = &got.out[row * 16..][..16];
                let right = if attends {
                    out.iter().all(|x| !x.is_finite())
                } else {
                    out.iter().all(|x| x.is_finite())
                };
                assert!(
                    right,
                    "{kind:?}, {pattern}: batch {batch}, head {head}, query {i}, {attends}: {out:?}"
                );
            }
            assert!(dropped_too > 20, "{dropped_too}");
        }
    }
}

fn message(gpu: &Gpu, attention: impl Into<wgpu_attention::Attention>) -> String {
    gpu.kernels().attention(attention, &Full).expect_err("a bad one").to_string()
}

#[test]
fn bad_dropout_says_what_is_wrong() {
    for (rate, got) in [(1.0, "1"), (-0.5, "-0.5"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let text = message(gpu(), shape().score(Score::new().dropout(rate, 1)));
        assert_eq!(text, format!("dropout.rate: need a number from 0 to less than 1, got {got}"));
    }
}

/// Cooperative matrices do not do it: forced, that is an error; else the plan says why it takes another path.
#[test]
fn cooperative_matrices_refuse_it() {
    let forced = crate::support::cooperative(Options::default().path(KernelPath::Cooperative));
    let attention = shape().storage(Storage::all(F16)).score(Score::new().dropout(0.1, 1));
    let text = message(&forced, &attention);
    assert_eq!(
        text,
        "score: need a score without dropout, which the tile of matrices does not do, got dropout"
    );
    let free = crate::support::cooperative(Options::default());
    let plan = free.kernels().attention(&attention, &Full).expect("a good call");
    assert_eq!(plan.path().path, KernelPath::Scalar);
    assert!(plan.path().why.contains("a score without dropout"), "{}", plan.path().why);
}

/// Another seed and another rate are other parameters of the same shader; a rate of 0 is the shader without dropout.
#[test]
fn another_seed_compiles_nothing() {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};
    let texts = Arc::new(Mutex::new(HashSet::new()));
    let seen = texts.clone();
    let edit = move |text: &str| {
        seen.lock().expect("no panic").insert(text.to_owned());
        text.to_owned()
    };
    let kernels =
        Kernels::with_edited_shaders(gpu().device(), Options::default(), edit).expect("valid options");
    let shaders = |rate, seed| {
        let plan = kernels.attention(shape().score(Score::new().dropout(rate, seed)), &Causal);
        plan.expect("a good call").backward().expect("a good call");
        texts.lock().expect("no panic").len()
    };
    let first = shaders(0.1, 1);
    assert_eq!(shaders(0.1, 2), first);
    assert_eq!(shaders(0.7, u64::MAX), first);
    let with_none = shaders(0.0, 1);
    assert!(with_none > first);
    kernels.attention(shape(), &Causal).expect("a good call").backward().expect("a good call");
    assert_eq!(texts.lock().expect("no panic").len(), with_none, "no dropout is no dropout");
    let texts = texts.lock().expect("no panic");
    assert_eq!(
        texts.iter().filter(|text| text.contains("fn threefry")).count(),
        first - 1,
        "all but the records"
    );
}

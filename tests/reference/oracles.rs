//! The count and gather oracles pass the exact result and find the index errors that they are for.

use wgpu_attention::pattern::Identity;
use wgpu_attention::reference::oracle::{check_count, check_gather, count_inputs, gather_inputs};
use wgpu_attention::reference::{self, Got, Report, Rows, WeightFormat};
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Causal, Element, ElementType, Extent, Full, Layout, Layouts,
    Pattern, Result, Score, Site, Storage, Strides, Temperature,
};

/// `Causal` with one pair more or less.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wrong(usize, usize);

impl Pattern for Wrong {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        Causal.keep(site, i, j) != ((i, j) == (self.0, self.1))
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }

    fn check(&self, extent: &Extent) -> Result<()> {
        Causal.check(extent)
    }
}

fn calls() -> Vec<Attention> {
    let base = AttentionShape::new(2, 2, 37, 16).value_dim(8);
    let strided = Layouts::default().q(Layout::Strided(Strides::new(2000, 20, 50).offset(3))).k(Layout::Blhd);
    vec![
        base.into(),
        base.kv_heads(1).q_len(5).layout(Layout::Blhd),
        base.score(Score::new().bias(BiasStrides::broadcast([1, 2, 37, 37]))),
        base.score(Score::new().scale(-2.0)),
        base.score(Score::new().softcap(14.0)),
        base.score(Score::new().softcap(50.0)),
        base.score(Score::new().with(Temperature)),
        base.layouts(strided),
        AttentionShape::new(1, 1, 1, 1).into(),
        AttentionShape::new(1, 1, 100, 7).value_dim(1).into(),
    ]
}

/// What a kernel with `pattern` makes of the inputs, rounded.
fn kernel<E: Element, O: Element>(
    attention: &Attention,
    tensors: &reference::Tensors<E>,
    pattern: &dyn Pattern,
) -> (Vec<O>, Vec<f32>) {
    let shape = &attention.shape;
    let exact = reference::attention_with(attention, &tensors.inputs(), pattern).unwrap();
    let mut out = vec![O::from_f64(99.0); attention.len_out()];
    for (n, row) in exact.out.chunks(shape.value_dim).enumerate() {
        let (rest, i) = (n / shape.q_len, n % shape.q_len);
        let start = attention.out_strides().at(rest / shape.heads, rest % shape.heads, i);
        out[start..start + shape.value_dim].iter_mut().zip(row).for_each(|(got, &x)| *got = O::from_f64(x));
    }
    (out, exact.lse.iter().map(|&x| x as f32).collect())
}

fn count<E: Element, O: Element>(
    attention: impl Into<Attention>,
    used: &dyn Pattern,
    want: &dyn Pattern,
) -> Report {
    let attention = attention.into();
    let tensors = count_inputs::<E, E>(&attention, 1).unwrap();
    let (out, lse) = kernel::<E, O>(&attention, &tensors, used);
    let got = Got::new(&out).lse(&lse[..]);
    check_count(&attention, &tensors.inputs(), want, got, Rows::All).unwrap()
}

fn gather<E: Element, O: Element>(
    attention: impl Into<Attention>,
    used: &dyn Pattern,
    want: &dyn Pattern,
) -> Report {
    let attention = attention.into();
    let gather = gather_inputs::<E, E>(&attention, want, 1).unwrap();
    let (out, _) = kernel::<E, O>(&attention, &gather.tensors, used);
    check_gather(&attention, &gather, want, Got::new(&out), Rows::All, WeightFormat::F32).unwrap()
}

#[test]
fn the_exact_result_passes() {
    for call in calls() {
        for pattern in [&Full as &dyn Pattern, &Causal] {
            for report in
                [count::<f32, f32>(&call, pattern, pattern), gather::<f32, f32>(&call, pattern, pattern)]
            {
                assert!(report.pass && report.unspecified == 0, "{call:?} {pattern:?}: {report}");
            }
        }
    }
    let half = calls()[0].clone().storage(Storage::all(ElementType::F16));
    assert!(count::<half::f16, half::f16>(&half, &Causal, &Causal).pass);
    assert!(gather::<half::f16, half::f16>(&half, &Causal, &Causal).pass);
    let mixed = calls()[0].clone().storage(Storage::all(ElementType::Bf16).out(ElementType::F32));
    assert!(count::<half::bf16, f32>(&mixed, &Causal, &Causal).pass);
    assert!(gather::<half::bf16, f32>(&mixed, &Causal, &Causal).pass);
}

#[test]
fn one_pair_too_few_or_too_many_is_found() {
    // Long rows, where the bound would not see one key of average weight.
    let shape = AttentionShape::new(1, 1, 700, 16).q_len(3);
    for pair in [(0, 0), (1, 350), (2, 699), (0, 699), (1, 699)] {
        let report = count::<f32, f32>(shape, &Wrong(pair.0, pair.1), &Causal);
        assert!(!report.pass, "{pair:?}: {report}");
        assert_eq!(report.worst_out.unwrap().position.i, pair.0);
    }
}

#[test]
fn lse_of_a_count_shows_one_key() {
    let shape = AttentionShape::new(1, 1, 4097, 1).q_len(1).value_dim(1);
    let tensors = count_inputs::<f32, f32>(shape, 1).unwrap();
    let (out, mut lse) = kernel::<f32, f32>(&shape.into(), &tensors, &Full);
    lse[0] = 4096f32.ln();
    let got = Got::new(&out).lse(&lse[..]);
    assert!(!check_count(shape, &tensors.inputs(), &Full, got, Rows::All).unwrap().pass);
}

#[test]
fn a_missing_or_added_addressed_key_is_found() {
    let shape = AttentionShape::new(1, 2, 64, 16);
    let inputs = gather_inputs::<f32, f32>(shape, &Causal, 1).unwrap();
    let attended: Vec<bool> = inputs.targets.iter().enumerate().map(|(n, &t)| t as usize <= n % 64).collect();
    let hits = attended.iter().filter(|x| **x).count();
    assert!((90..128).contains(&hits), "{hits} of 128");
    // Drop, or add, the pair that each of some rows addresses.
    for n in [0, 5, 63, 64, 100, 127] {
        let report = gather::<f32, f32>(&shape, &Wrong(n % 64, inputs.targets[n] as usize), &Causal);
        // A dropped only key leaves an empty row: zeros, which may be the value of key 0.
        assert!(!report.pass, "row {n}: {report}");
    }
}

#[test]
fn exchanged_heads_are_found() {
    let shape = AttentionShape::new(2, 2, 64, 16);
    let inputs = gather_inputs::<f32, f32>(shape, &Full, 1).unwrap();
    for (from, to) in [(0, 1), (0, 2), (2, 3)] {
        let mut tensors = inputs.tensors.clone();
        let head = 64 * 16;
        tensors.v.copy_within(from * head..(from + 1) * head, to * head);
        let (out, _) = kernel::<f32, f32>(&shape.into(), &tensors, &Full);
        let got = Got::new(&out);
        assert!(
            !check_gather(shape, &inputs, &Full, got, Rows::All, WeightFormat::F32).unwrap().pass,
            "values {from} -> {to}"
        );

        let mut tensors = inputs.tensors.clone();
        tensors.k.copy_within(from * head..(from + 1) * head, to * head);
        let (out, _) = kernel::<f32, f32>(&shape.into(), &tensors, &Full);
        let got = Got::new(&out);
        assert!(
            !check_gather(shape, &inputs, &Full, got, Rows::All, WeightFormat::F32).unwrap().pass,
            "keys {from} -> {to}"
        );
    }
}

#[test]
fn what_the_oracles_cannot_do_is_an_error() {
    let shape = AttentionShape::new(1, 1, 100, 6);
    let error =
        |attention: Attention| gather_inputs::<f32, f32>(attention, &Full, 0).unwrap_err().to_string();
    let alibi = shape.score(Score::new().alibi());
    assert_eq!(error(shape.into()), "head_dim: need at least 7, the bits of a key's code, got 6");
    assert!(error(alibi.clone()).starts_with("alibi: "));
    let small = AttentionShape::new(1, 1, 4, 8);
    assert!(error(small.score(Score::new().scale(0.0))).starts_with("scale: "));
    assert!(error(small.score(Score::new().softcap(5.0))).starts_with("softcap: "));
    let one_key = Layouts::default().k(Layout::Strided(Strides::new(0, 0, 0)));
    assert!(error(small.layouts(one_key)).starts_with("k_layout: "));
    let half = small.storage(Storage::all(ElementType::F16)).score(Score::new().scale(1e-5));
    let half = gather_inputs::<half::f16, half::f16>(half, &Full, 0).unwrap_err().to_string();
    assert!(half.starts_with("scale: "), "{half}");
    assert!(count_inputs::<f32, f32>(alibi, 0).is_err());
    assert!(count_inputs::<half::f16, half::f16>(shape, 0).is_err());

    let inputs = gather_inputs::<f32, f32>(&AttentionShape::new(1, 1, 8, 8), &Full, 0).unwrap();
    let other = AttentionShape::new(1, 1, 8, 8).q_len(8);
    let mut foreign = inputs.clone();
    foreign.targets.pop();
    let got = Got::new(&[0.0f32; 64]);
    assert!(
        check_gather(other, &foreign, &Full, got, Rows::All, WeightFormat::F32)
            .unwrap_err()
            .to_string()
            .starts_with("targets: ")
    );
}

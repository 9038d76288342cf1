//! A call of some heads costs what they cost.

use super::attention;
use wgpu_attention::{Attention, AttentionShape, Causal, Explanation, Heads, Options, Pattern, Site};
use wgpu_attention_testing::{gpu_with, picked};

fn explained(attention: Attention, pattern: &dyn Pattern) -> Explanation {
    let gpu = gpu_with(Options::default().splits(1));
    gpu.kernels().attention(attention, pattern).expect("a good call").explain().clone()
}

#[test]
fn workgroups_pairs_and_operations_follow_the_heads() {
    let shape = AttentionShape::new(2, 12, 200, 16);
    let all = explained(shape.into(), &Causal);
    for count in 1..=12u32 {
        let heads: Vec<u32> = (0..count).map(|n| 5 * n % 12).collect();
        let some = explained(shape.heads(Heads::only(&heads)), &Causal);
        let of = |all: u64| all / 12 * u64::from(count);
        assert_eq!(some.workgroups, of(all.workgroups), "{count} heads");
        assert_eq!((some.kept, some.visited), (of(all.kept), of(all.visited)), "{count} heads");
        assert!((some.flops / all.flops - f64::from(count) / 12.0).abs() < 1e-12, "{count} heads");
    }
}

#[test]
fn pairs_are_those_of_the_heads_own_masks() {
    let attention = attention();
    let extent = attention.shape.extent();
    let pattern = picked("blocks_per_head", &extent, 3);
    let kept = |head: usize| {
        let sites = [0, 1].map(|batch| Site { batch, head, extent });
        let pairs = sites.iter().flat_map(|site| (0..70 * 70).map(move |n| (site, n)));
        pairs.filter(|(site, n)| pattern.as_dyn().keep(site, n / 70, n % 70)).count() as u64
    };
    let want: u64 = [1, 4, 5].map(kept).iter().sum();
    let found = explained(attention.clone(), pattern.as_dyn());
    assert_eq!(found.kept, want);
    let all: u64 = (0..6).map(kept).sum();
    assert_eq!(explained(attention.heads(Heads::ALL), pattern.as_dyn()).kept, all);
}

#[test]
fn the_backward_passes_shrink_too() {
    let gpu = gpu_with(Options::default());
    let shape = AttentionShape::new(1, 8, 64, 16).kv_heads(4);
    let flops = |heads: Heads| {
        let plan = gpu.kernels().attention(shape.heads(heads), &Causal).expect("a good call");
        plan.backward().expect("gradients").explain().flops
    };
    assert_eq!(flops(Heads::only(&[0, 1])), flops(Heads::ALL) / 4.0);
}

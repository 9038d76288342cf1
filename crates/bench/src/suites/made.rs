//! Cases, from a few words.

use crate::cases::{Lanes, NamedPattern, Spec, Wanted, Work, pattern};
use crate::record::Direction;
use crate::scores::score;
use wgpu_attention::{
    AddShape, Attention, AttentionShape, CacheShape, CacheStorage, DecodeShape, ElementType, EmbedShape,
    IntegerFormat, IntegerType, LinearOptions, LinformerOptions, LshOptions, MatmulShape, NormKind,
    NormShape, RecurrentCell, RecurrentShape, RotaryShape, ScaleGroups, SoftmaxShape, Storage, WeightOrder,
};

pub(super) fn of(work: Work) -> Spec {
    Spec { known_as: None, work, lanes: Lanes::Planned }
}

pub(super) fn named(known_as: &'static str, spec: Spec) -> Spec {
    Spec { known_as: Some(known_as), ..spec }
}

pub(super) fn attention(attention: impl Into<Attention>, pattern: NamedPattern) -> Spec {
    of(Work::Attention { attention: attention.into(), pattern })
}

/// The gradients of such a call.
pub(super) fn backward(name: &str, call: impl Into<Attention>) -> Spec {
    let call = call.into();
    let pattern = pattern(name, call.shape.kv_len).unwrap_or_else(|| panic!("there is no pattern {name}"));
    of(Work::Backward { attention: call, pattern, wanted: Wanted::All })
}

/// One of the patterns that are there; a test makes every suite.
pub(super) fn dense(name: &str, call: impl Into<Attention>) -> Spec {
    let call = call.into();
    let pattern = pattern(name, call.shape.kv_len).unwrap_or_else(|| panic!("there is no pattern {name}"));
    attention(call, pattern)
}

/// A call with one of the scores that are there.
pub(super) fn scored(name: &str, shape: AttentionShape) -> Attention {
    shape.score(score(name, &shape).unwrap_or_else(|| panic!("there is no score {name}")))
}

/// A call whose score is a text of one's own, in programs that have such texts.
#[cfg(feature = "custom")]
pub(super) fn own_text(pattern: &str, call: impl Into<Attention>) -> Option<Spec> {
    let call = call.into();
    let score = score(crate::scores::CUSTOM, &call.shape)?;
    Some(dense(pattern, call.score(score)))
}

#[cfg(not(feature = "custom"))]
pub(super) fn own_text(_: &str, _: impl Into<Attention>) -> Option<Spec> {
    None
}

pub(super) fn known(known_as: &'static str, pattern: &str, call: impl Into<Attention>) -> Spec {
    named(known_as, dense(pattern, call))
}

/// A few queries against a cache of keys, four query heads a key head.
pub(super) fn decode(heads: usize, queries: usize, kv_len: usize, element: ElementType) -> Spec {
    let shape = AttentionShape::new(1, heads, queries, 128).kv_heads(heads / 4).kv_len(kv_len);
    dense("causal", shape.storage(Storage::all(element)))
}

/// A token per sequence against a full cache, eight query heads on two key heads.
pub(super) fn cached(batch: usize, len: usize, storage: impl Into<CacheStorage>) -> Spec {
    let cache = CacheShape::new(batch, 2, len, 128).storage(storage);
    of(Work::Decode(DecodeShape::new(cache, 8, 1)))
}

/// Four rounds in chunks of 64, about two places a bucket and chunk.
pub(super) fn lsh(call: impl Into<Attention>, known_as: Option<&'static str>) -> Spec {
    let attention = call.into();
    let buckets = (attention.shape.kv_len / 32).min(LshOptions::MAX_BUCKETS);
    let low = 1 << (buckets.ilog2() / 2);
    let options = LshOptions::new(4, buckets, 64).buckets(vec![low, buckets / low]).causal(true);
    Spec { known_as, ..of(Work::Lsh { attention, options, direction: Direction::Forward }) }
}

/// Linear attention.
pub(super) fn linear(call: impl Into<Attention>, options: LinearOptions) -> Spec {
    of(Work::Linear { attention: call.into(), options, direction: Direction::Forward })
}

/// Linformer.
pub(super) fn linformer(call: impl Into<Attention>, options: LinformerOptions) -> Spec {
    of(Work::Linformer { attention: call.into(), options, direction: Direction::Forward })
}

/// LSH attention, linear attention or Linformer in another direction.
pub(super) fn directed(mut spec: Spec, to: Direction) -> Spec {
    match &mut spec.work {
        Work::Lsh { direction, .. } | Work::Linear { direction, .. } | Work::Linformer { direction, .. } => {
            *direction = to;
        }
        other => panic!("{other:?} has one direction"),
    }
    spec
}

/// x W^T, W of integers.
pub(super) fn integers(
    element: IntegerType,
    groups: ScaleGroups,
    [rows, inner, columns]: [usize; 3],
) -> Spec {
    let format = IntegerFormat::new(element).groups(groups);
    of(Work::Matmul(MatmulShape::new(rows, inner, columns).weights(WeightOrder::OutIn).integers(format)))
}

/// A network of one layer.
pub(super) fn recurrent(cell: RecurrentCell, [batch, steps, width]: [usize; 3], weight: ElementType) -> Spec {
    of(Work::Recurrent(RecurrentShape::new(cell, batch, steps, width, width).weight(weight)))
}

/// The kernels whose time is that of memory.
pub(super) fn small(rows: usize, width: usize, element: ElementType) -> Vec<Spec> {
    let norm = |kind| {
        let shape = NormShape::new(kind, rows, width, 1e-5).elements(element);
        Work::Norm(if kind == NormKind::Layer { shape.bias(true) } else { shape })
    };
    let works = [
        norm(NormKind::Layer),
        norm(NormKind::Rms),
        Work::Softmax(SoftmaxShape::new(rows, width).input(element).output(element)),
        Work::Rotary(RotaryShape::new(1, width / 64, rows, 64).input(element).output(element)),
        Work::Embed(EmbedShape::new(rows, 8192, width).table(element).output(element)),
        Work::Add(AddShape::new(rows, width).input(element).other(element).output(element)),
    ];
    works.map(of).into()
}

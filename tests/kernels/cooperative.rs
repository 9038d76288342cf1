//! The cooperative path.

use crate::support::{Case, bound, check_all, count, gather};
use wgpu_attention::{AttentionShape, Causal, ElementType, KernelPath, Options};

fn case(shape: AttentionShape) -> Case {
    let shape = AttentionShape { input: ElementType::F16, output: ElementType::F16, ..shape };
    Case::new(shape).options(Options::default().path(KernelPath::Cooperative))
}

#[test]
fn first() {
    let cases = || [
        case(AttentionShape::new(1, 1, 64, 16)),
        case(AttentionShape::new(1, 1, 64, 64)),
        case(AttentionShape::new(1, 2, 130, 64)).pattern(Causal),
    ];
    check_all("gather", cases(), gather);
    check_all("count", cases(), count);
    check_all("bound", cases(), bound);
}

//! The kernels whose share of a GPU's peak is predicted (`tools/isa`), at two lengths: the longer one fills a large GPU, the shorter one says whether a small
//! one, or a software adapter, has the time for it.

use super::made::{backward, dense, of};
use crate::cases::{Lanes, Spec, Wanted, Work};
use crate::record::Rules;
use wgpu_attention::{AttentionShape, MatmulShape};

const HEADS: usize = 16;

/// Few samples of each, and no call of more than a second.
pub(super) fn rules(rules: Rules) -> Rules {
    Rules {
        min_samples: 5,
        min_s: 0.2,
        max_s: 1.2,
        deviation: 0.01,
        cold_bytes: 0,
        most_call_s: Some(1.0),
        most_run_s: Some(75.0),
        ..rules
    }
}

/// Short ones first, so that they tell how long the others would take.
pub(super) fn cases() -> Vec<Spec> {
    let mut specs = vec![];
    for head_dim in [64, 128, 256] {
        for len in [256, 4096] {
            let shape = AttentionShape::new(1, HEADS, len, head_dim);
            // As predicted for the least device, and as a device with more runs it.
            specs
                .extend([Lanes::Portable, Lanes::Staged].map(|lanes| Spec { lanes, ..dense("full", shape) }));
        }
    }
    for head_dim in [64, 128] {
        for len in [128, 2048] {
            let shape = AttentionShape::new(1, HEADS, len, head_dim);
            specs.extend([Wanted::Queries, Wanted::Keys].map(|wanted| gradients(shape, wanted)));
        }
    }
    for rows in [128, 1024, 4096] {
        let product = of(Work::Matmul(MatmulShape::new(rows, 4096, 4096)));
        specs.push(Spec { lanes: Lanes::Staged, ..product });
    }
    specs
}

fn gradients(shape: AttentionShape, wanted: Wanted) -> Spec {
    let mut spec = Spec { lanes: Lanes::Staged, ..backward("full", shape) };
    if let Work::Backward { wanted: of, .. } = &mut spec.work {
        *of = wanted;
    }
    spec
}

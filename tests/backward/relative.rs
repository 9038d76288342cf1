//! Relative rows: in dq by r, in dk by u.

use crate::gradients::close_on;
use crate::support::{Case, Cut, cut, gpu_with};
use wgpu_attention::{AttentionShape, Causal, Full, Gpu, Relative, Score, Strides};

fn shape(head_dim: usize) -> AttentionShape {
    AttentionShape::new(2, 4, 70, head_dim).kv_heads(2).kv_len(150).value_dim(8)
}

/// All distances of the shape; a few, clipped, in one tensor for all heads.
fn rows(head_dim: usize) -> [Relative; 3] {
    let all = Relative::new(149, 220);
    let shared = Strides { offset: 3, batch: 0, head: 0, row: head_dim as isize + 1 };
    [all, all.u(true).w(true), Relative::new(9, 25).clip(true).strides(shared).w(true)]
}

pub(crate) fn relative_on(gpu: &Gpu) -> Result<(), String> {
    for relative in rows(16) {
        let case = Case::new(shape(16).score(Score::new().with(relative))).pattern(Causal);
        close_on(gpu, &case, &case.parts())?;
    }
    Ok(())
}

#[test]
fn relative_rows() {
    relative_on(&gpu_with(Default::default())).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn odd_sizes_parts_and_terms_above() {
    let check = |case: &Case, how| {
        close_on(&gpu_with(case.options), case, &cut(case, how, 1)).unwrap_or_else(|e| panic!("{e}"));
    };
    for (head_dim, relative) in [7, 7, 7, 16].into_iter().zip(rows(7).into_iter().chain([rows(16)[1]])) {
        let case = Case::new(shape(head_dim).score(Score::new().with(relative))).pattern(Causal);
        check(&case, Cut::Whole);
        check(&case, Cut::Gathers);
    }
    // A tensor of another term would be a ninth buffer, more than every device has.
    for relative in [rows(16)[1], rows(16)[0]] {
        let score = Score::new().scale(0.3).with(relative).softcap(3.0);
        check(&Case::new(shape(16).score(score)).pattern(Full), Cut::Whole);
    }
}

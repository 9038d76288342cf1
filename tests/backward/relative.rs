//! Relative rows: in dq by r, in dk by u.

use crate::gradients::{KINDS, close, close_on};
use crate::support::{Case, Cut, cut, gpu_with};
use wgpu_attention::{AttentionShape, Causal, Full, Gpu, Options, Relative, Score, Segments, Strides};

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
    for kind in KINDS {
        relative_on(&gpu_with(Options::default().tile_kind(kind)))
            .unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
}

#[test]
fn odd_sizes_parts_and_terms_above() {
    let check = |case: &Case, how| close(case, &cut(case, how, 1));
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

/// Rows of which a lane of the staged tile holds four groups; with segments, in turn.
#[test]
fn wide_rows() {
    let wide = AttentionShape::new(1, 2, 40, 138).kv_heads(1).kv_len(70).value_dim(8);
    for score in [Score::new().with(Relative::new(69, 110).u(true)), Score::new().with(Segments)] {
        let case = Case::new(wide.score(score)).pattern(Causal);
        close(&case, &case.parts());
    }
}

//! The state (m, l) of a row, over all parts and splits.

use crate::support::{Case, Cut, cut, gpu_with, picked};
use wgpu_attention::reference::Tensors;
use wgpu_attention::{AttentionShape, Causal, Options, Outputs, Parts, Score};

/// m + ln l, m in units of ln 2 where the score is plain.
fn lse_of(case: &Case, state: &[f32]) -> f64 {
    let [m, l] = [state[0], state[1]].map(f64::from);
    let unit = if case.attention.score.is_plain() { std::f64::consts::LN_2 } else { 1.0 };
    m * unit + l.ln()
}

/// The state says what lse says, and asking for it, alone or with lse, changes no bit of the rest.
fn agrees(case: &Case, parts: &Parts) {
    let gpu = gpu_with(case.options);
    let tensors: Tensors<f32, f32> = case.tensors();
    let run = |outputs| {
        let result = gpu.run_parts::<_, _, f32>(&case.attention, &tensors.inputs(), parts, outputs);
        result.unwrap_or_else(|e| panic!("{e}\n{case}"))
    };
    let both = run(Outputs::default().lse().state());
    let alone = run(Outputs::default().state());
    let plain = run(Outputs::default().lse());
    assert_eq!((&both.out, &both.lse), (&plain.out, &plain.lse), "{case}");
    assert_eq!((&both.out, &both.state, &None), (&alone.out, &alone.state, &alone.lse), "{case}");
    let (state, lse) = (both.state.expect("asked for"), both.lse.expect("asked for"));
    assert_eq!(state.len(), 2 * lse.len(), "{case}");
    for (row, (state, lse)) in state.chunks(2).zip(lse).enumerate() {
        if lse == f32::MIN {
            assert_eq!(state[1], 0.0, "row {row} of {case}");
        } else {
            let error = (lse_of(case, state) - f64::from(lse)).abs();
            assert!(error < 1e-5 * f64::from(lse.abs()).max(1.0), "row {row}: {state:?}, lse {lse}\n{case}");
        }
    }
}

#[test]
fn the_state_is_that_of_all_parts_and_splits() {
    // 150 queries before 70 keys: causal leaves rows empty.
    for shape in [
        AttentionShape::new(2, 4, 70, 16).kv_heads(2).kv_len(150),
        AttentionShape::new(1, 2, 150, 7).kv_len(70),
    ] {
        for score in [Score::new(), Score::new().softcap(3.0).alibi()] {
            let case = Case::new(shape.score(score)).pattern(Causal);
            for splits in [1, 3] {
                let case = case.clone().options(Options::default().splits(splits));
                agrees(&case, &case.parts());
                let drawn = case.clone().pattern(picked("blocks", &shape.extent(), 3));
                agrees(&drawn, &cut(&drawn, Cut::Keys, 1));
            }
        }
    }
}

//! The scores that are timed, by name: the published ones, with sizes that suit a length.

use wgpu_attention::{AttentionShape, BiasStrides, Buckets, Relative, Score, Segments, Sinks, Temperature};

/// A score of the sizes of a call.
type OfShape = fn(&AttentionShape) -> Score;

/// The scores. Their names are short: the same at every length. `txl` and `music` have rows of the distances that causal patterns and
/// windows into the past show, and of no others.
pub const SCORES: [(&str, OfShape); 11] = [
    ("alibi", |_| Score::new().alibi()),
    // Its encoder's; there is no 1 / sqrt(d).
    ("t5", |_| Score::new().scale(1.0).with(Buckets::new(32, 128).bidirectional(true))),
    // Transformer-XL.
    ("txl", |shape| Score::new().with(past_rows(shape).u(true).w(true))),
    // Rows of every distance, and segments.
    ("xlnet", |shape| {
        let rows = Relative::new(shape.kv_len as i32, shape.kv_len + shape.q_len).u(true).w(true);
        Score::new().with(rows).with(Segments)
    }),
    // Music Transformer.
    ("music", |shape| Score::new().with(past_rows(shape))),
    // 16 on each side, which further distances share.
    ("shaw", |_| Score::new().with(Relative::new(16, 33).clip(true))),
    ("sinks", |_| Score::new().with(Sinks)),
    // Gemma 2.
    ("softcap", |_| Score::new().softcap(50.0)),
    ("temperature", |_| Score::new().with(Temperature)),
    ("dropout", |_| Score::new().dropout(0.1, 7)),
    // One per pair, which all heads share.
    ("bias", |shape| Score::new().bias(BiasStrides::broadcast([1, 1, shape.q_len, shape.kv_len]))),
];

/// A row for each distance into the past.
fn past_rows(shape: &AttentionShape) -> Relative {
    Relative::new(shape.kv_len as i32 - 1, shape.kv_len)
}

/// The name of the score that is a text of one's own.
#[cfg(feature = "custom")]
pub const CUSTOM: &str = "custom";

/// A prior on nearness, as one writes it oneself: ln(1 + |D|) less.
#[cfg(feature = "custom")]
fn custom() -> Score {
    let text = "fn near_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    return s - log(vec4(1.0) + vec4<f32>(abs(pairs.distance)));
}";
    let ln = |distance: i64| (1.0 + distance.unsigned_abs() as f64).ln();
    // WGSL's log is within 2^-21 up to 2, and within 3 last places beyond; then one subtraction.
    let near = wgpu_attention::Custom::adds("near", text, move |s, at| s - ln(at.distance)).error(
        move |_, error, after, at| {
            let epsilon = f64::from(f32::EPSILON);
            let error = error + 2f64.powi(-21) + 3.0 * epsilon * ln(at.distance);
            error + epsilon * (after.abs() + error)
        },
    );
    Score::new().with(near)
}

/// A score by its name, for the sizes of a call; none where no score is called so, or where this program is built without texts of one's
/// own.
pub fn score(name: &str, shape: &AttentionShape) -> Option<Score> {
    #[cfg(feature = "custom")]
    if name == CUSTOM {
        return Some(custom());
    }
    let (_, of_shape) = SCORES.into_iter().find(|(known, _)| *known == name)?;
    Some(of_shape(shape))
}

/// What a case of this score is called; none of the plain one. A score that has no name here is called as its text has it.
pub(crate) fn name(score: &Score, shape: &AttentionShape) -> Option<String> {
    if *score == Score::new() {
        return None;
    }
    #[cfg(feature = "custom")]
    if *score == custom() {
        return Some(CUSTOM.into());
    }
    let known = SCORES.into_iter().find(|(_, of_shape)| of_shape(shape) == *score);
    Some(known.map_or_else(|| score.to_string(), |(name, _)| name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_is_valid_known_by_its_name_and_said_by_its_text() {
        for len in [512, 1024, 8192] {
            let shape = AttentionShape::new(1, 8, len, 64);
            for (known, of_shape) in SCORES {
                let scored = of_shape(&shape);
                shape.score(scored.clone()).check().unwrap_or_else(|error| panic!("{known}: {error}"));
                assert_eq!(score(known, &shape), Some(scored.clone()));
                assert_eq!(name(&scored, &shape).as_deref(), Some(known));
                assert_eq!(scored.to_string().parse::<Score>().as_ref(), Ok(&scored), "{known}");
            }
        }
    }

    #[test]
    fn other_scores_are_called_by_their_text() {
        let shape = AttentionShape::new(1, 1, 512, 64);
        assert_eq!((name(&Score::new(), &shape), score("helix", &shape)), (None, None));
        let cold = Score::new().scale(3.0).alibi();
        assert_eq!(name(&cold, &shape).as_deref(), Some("scale:factor=3 + alibi"));
        // Of other sizes: its rows are not those of this call.
        let other = score("txl", &AttentionShape::new(1, 1, 1024, 64)).unwrap();
        assert_eq!(
            name(&other, &shape).as_deref(),
            Some("relative:first_distance=1023,rows=1024,u=true,w=true")
        );
    }

    #[cfg(feature = "custom")]
    #[test]
    fn a_text_of_ones_own_has_a_name() {
        let shape = AttentionShape::new(1, 1, 512, 64);
        assert_eq!(name(&score(CUSTOM, &shape).unwrap(), &shape).as_deref(), Some(CUSTOM));
    }
}

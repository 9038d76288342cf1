//! Text that a model makes up, character by character.

use crate::Error;
use crate::text::Text;
use crate::trainer::Trainer;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Below 1, likely characters become likelier.
const TEMPERATURE: f32 = 0.7;

/// So many characters behind the first of what was held out.
pub(crate) fn sample(trainer: &Trainer, text: &Text, characters: usize) -> Result<String, Error> {
    let config = trainer.config();
    let (len, vocabulary) = (config.len, config.vocabulary);
    let mut random = StdRng::seed_from_u64(config.seed);
    let prompt = text.unseen([1, len], 0, 1)?.ids;
    let mut ids = prompt[..(len / 4).max(1)].to_vec();
    let begin = ids.len();
    for _ in 0..characters {
        // The window slides where the text is longer than it; what lies behind the last character is not looked at.
        let seen = &ids[ids.len().saturating_sub(len)..];
        let mut window = vec![0u32; config.rows()];
        window[..seen.len()].copy_from_slice(seen);
        trainer.gpu().queue().write_buffer(trainer.model().tokens(), 0, bytemuck::cast_slice(&window));
        trainer.submit(|encoder| trainer.model().forward(encoder));
        let row = 4 * vocabulary as u64;
        let logits = trainer.values(trainer.model().logits(), (seen.len() as u64 - 1) * row, row)?;
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let weights = logits.iter().map(|logit| ((logit - largest) / TEMPERATURE).exp());
        ids.push(random.sample(WeightedIndex::new(weights)?) as u32);
    }
    let shown = |ids: &[u32]| ids.iter().map(|&id| text.character(id)).collect::<String>();
    Ok(format!("{} | {}", shown(&ids[..begin]), shown(&ids[begin..])))
}

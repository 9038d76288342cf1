//! The text: characters as ids, batches of it, and how surprising it is to who knows its characters' frequencies alone.

use crate::Error;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;

/// A text, of which the last tenth is held out.
pub(crate) struct Text {
    ids: Vec<u32>,
    characters: Vec<char>,
}

/// Sequences, and what follows each of their characters.
pub(crate) struct Batch {
    pub(crate) ids: Vec<u32>,
    pub(crate) targets: Vec<u32>,
}

impl Text {
    /// Of a file, or of this repository's documentation.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, Error> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {} as text: {error}", path.display()))?,
            None => documentation()?,
        };
        Self::new(&text)
    }

    pub(crate) fn new(text: &str) -> Result<Self, Error> {
        let mut characters: Vec<char> = text.chars().collect();
        characters.sort_unstable();
        characters.dedup();
        if characters.len() < 2 {
            return Err(
                format!("text: need at least 2 kinds of characters, found {}", characters.len()).into()
            );
        }
        let id = |c| characters.binary_search(&c).expect("a character of the text") as u32;
        Ok(Self { ids: text.chars().map(id).collect(), characters })
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.characters.len()
    }

    /// Its kinds of characters, in their order.
    pub(crate) fn characters(&self) -> String {
        self.characters.iter().collect()
    }

    pub(crate) fn character(&self, id: u32) -> char {
        self.characters[id as usize]
    }

    /// Where what is held out begins.
    fn held_out(&self) -> usize {
        self.ids.len() - self.ids.len() / 10
    }

    /// The entropy of the characters' frequencies, in nats: the loss of the best model that looks at no other character.
    pub(crate) fn unigram(&self) -> f64 {
        let mut counts = vec![0u32; self.vocabulary()];
        self.ids.iter().for_each(|&id| counts[id as usize] += 1);
        let share = |count: &u32| f64::from(*count) / self.ids.len() as f64;
        -counts.iter().map(share).filter(|share| *share > 0.0).map(|share| share * share.ln()).sum::<f64>()
    }

    /// Sequences from anywhere in what is learnt. A step's are its own, whatever came before: so a run that was interrupted goes on
    /// as if it had not been.
    pub(crate) fn batch(&self, [batch, len]: [usize; 2], seed: u64, step: u32) -> Result<Batch, Error> {
        let mut random = StdRng::seed_from_u64(seed ^ (u64::from(step) << 32));
        self.sequences(len, 0..self.held_out(), |last| {
            (0..batch).map(|_| random.random_range(0..=last)).collect()
        })
    }

    /// Sequences of what is held out, evenly spread over all turns: those of one of them.
    pub(crate) fn unseen(&self, [batch, len]: [usize; 2], turn: usize, turns: usize) -> Result<Batch, Error> {
        let range = self.held_out()..self.ids.len();
        let all = turns * batch;
        self.sequences(len, range, |last| {
            (0..batch).map(|n| (n * turns + turn) * last / (all - 1).max(1)).collect()
        })
    }

    /// Those that begin where `starts` says, given the last place where one may.
    fn sequences(
        &self,
        len: usize,
        range: std::ops::Range<usize>,
        starts: impl FnOnce(usize) -> Vec<usize>,
    ) -> Result<Batch, Error> {
        let part = &self.ids[range];
        let Some(last) = part.len().checked_sub(len + 1) else {
            let (need, found) = (10 * (len + 1), self.ids.len());
            return Err(format!("text: need {need} characters for sequences of {len}, found {found}").into());
        };
        let starts = starts(last);
        let from =
            |shift: usize| starts.iter().flat_map(move |at| &part[at + shift..][..len]).copied().collect();
        Ok(Batch { ids: from(0), targets: from(1) })
    }
}

/// All pages of `docs/`, and the README.
fn documentation() -> Result<String, Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("docs"))? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let texts: Result<Vec<String>, _> = pages.iter().map(std::fs::read_to_string).collect();
    Ok(texts?.concat())
}

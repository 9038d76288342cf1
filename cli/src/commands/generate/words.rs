//! Texts to ids and back, and how a text appears as it grows.

use crate::output::say;
use anyhow::Result;
use std::io::Write;

#[cfg(feature = "tokenizer")]
pub(super) use with::{Stream, Words};
#[cfg(not(feature = "tokenizer"))]
pub(super) use without::{Stream, Words};

/// Where tokens go.
pub(super) struct Shown<'a> {
    /// None where ids are shown.
    stream: Option<Stream<'a>>,
    text: String,
    /// Nothing goes to stdout.
    quiet: bool,
    any: bool,
}

impl<'a> Shown<'a> {
    /// As words, if there are any, or as ids.
    pub(super) fn new(words: Option<&'a Words>, quiet: bool) -> Self {
        Self { stream: words.map(Words::stream), text: String::new(), quiet, any: false }
    }

    /// One more token. Of a text only whole characters appear: a part of one waits for the rest.
    pub(super) fn show(&mut self, id: u32) -> Result<()> {
        let piece = match &mut self.stream {
            Some(stream) => stream.next(id)?,
            None if self.any => format!(" {id}"),
            None => id.to_string(),
        };
        self.any = true;
        if !self.quiet {
            let mut stdout = std::io::stdout();
            stdout.write_all(piece.as_bytes())?;
            stdout.flush()?;
        }
        self.text.push_str(&piece);
        Ok(())
    }

    /// The text that was shown, if it is one.
    pub(super) fn end(&mut self) -> Result<Option<String>> {
        if !self.quiet {
            say!("")?;
        }
        Ok(self.stream.is_some().then(|| std::mem::take(&mut self.text)))
    }
}

#[cfg(feature = "tokenizer")]
mod with {
    use anyhow::{Result, anyhow};
    use std::path::Path;
    use tokenizers::Tokenizer;

    /// Hugging Face's tokenizer of a model.
    pub(crate) struct Words(Tokenizer);

    impl Words {
        /// Reads `tokenizer.json`.
        pub(crate) fn open(path: &Path) -> Result<Self> {
            Tokenizer::from_file(path).map(Self).map_err(|error| anyhow!("{}: {error}", path.display()))
        }

        /// The ids of a text, with those that the model wants before it.
        pub(crate) fn ids(&self, text: &str) -> Result<Vec<u32>> {
            let encoding = self.0.encode(text, true).map_err(|error| anyhow!("the prompt: {error}"))?;
            Ok(encoding.get_ids().to_vec())
        }

        /// Words as their ids come.
        pub(crate) fn stream(&self) -> Stream<'_> {
            Stream { words: self, ids: vec![], said: 0, shown: String::new() }
        }
    }

    /// Ids that become text. What an id says may depend on the one before: ids are decoded together with those of the last piece.
    pub(crate) struct Stream<'a> {
        words: &'a Words,
        /// Those of the last piece, and those that are no whole characters yet.
        ids: Vec<u32>,
        /// How many of them have been shown.
        said: usize,
        /// What the first `said` say.
        shown: String,
    }

    impl Stream<'_> {
        fn text(&self, ids: &[u32]) -> Result<String> {
            self.words.0.decode(ids, true).map_err(|error| anyhow!("token {ids:?}: {error}"))
        }

        /// What there is to show with one more id: perhaps nothing.
        pub(crate) fn next(&mut self, id: u32) -> Result<String> {
            self.ids.push(id);
            let text = self.text(&self.ids)?;
            // The decoder puts U+FFFD where a character is not whole.
            let Some(piece) = text.strip_prefix(&self.shown).filter(|piece| !piece.ends_with('\u{fffd}'))
            else {
                return Ok(String::new());
            };
            let piece = piece.to_owned();
            self.ids.drain(..self.said);
            self.said = self.ids.len();
            self.shown = self.text(&self.ids)?;
            Ok(piece)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use serde_json::json;

        /// Bytes as GPT-2's vocabulary writes them: a letter, a space and the two bytes of é.
        fn words() -> Words {
            let vocabulary = json!({ "a": 0, "b": 1, "Ġ": 2, "Ã": 3, "©": 4, "ab": 5, "Ġa": 6 });
            let tokenizer = json!({
                "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
                "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
                "post_processor": null,
                "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
                "model": {
                    "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                    "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                    "vocab": vocabulary, "merges": ["a b", "Ġ a"]
                }
            });
            Words(Tokenizer::from_bytes(tokenizer.to_string()).expect("a tokenizer"))
        }

        #[test]
        fn only_whole_characters_are_shown() {
            let words = words();
            let ids = words.ids("ab é ab").expect("ids");
            assert_eq!(ids, [5, 2, 3, 4, 2, 5]);
            let mut stream = words.stream();
            let pieces: Vec<String> = ids.iter().map(|&id| stream.next(id).expect("a piece")).collect();
            assert_eq!(pieces, ["ab", " ", "", "é", " ", "ab"]);
            // Half a character that never becomes whole is not shown, and shows again with the next.
            let mut stream = words.stream();
            let pieces: Vec<String> =
                [0, 3, 0, 1].iter().map(|&id| stream.next(id).expect("a piece")).collect();
            assert_eq!(pieces, ["a", "", "\u{fffd}a", "b"]);
        }
    }
}

#[cfg(not(feature = "tokenizer"))]
mod without {
    use anyhow::{Result, bail};
    use std::marker::PhantomData;
    use std::path::Path;

    /// No tokenizer: the program was built without.
    pub(crate) enum Words {}

    /// No text.
    pub(crate) struct Stream<'a>(PhantomData<&'a ()>);

    impl Words {
        pub(crate) fn open(path: &Path) -> Result<Self> {
            bail!("{}: this program was built without the feature `tokenizer`", path.display())
        }

        pub(crate) fn ids(&self, _: &str) -> Result<Vec<u32>> {
            match *self {}
        }

        pub(crate) fn stream(&self) -> Stream<'_> {
            match *self {}
        }
    }

    impl Stream<'_> {
        pub(crate) fn next(&mut self, _: u32) -> Result<String> {
            Ok(String::new())
        }
    }
}

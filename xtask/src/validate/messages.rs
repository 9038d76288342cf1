//! What the layer prints, and which of it is known.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// How a message begins.
const HEADS: [&str; 2] = ["Validation Error: [ ", "Validation Warning: [ "];

/// A message of the layer.
#[derive(Debug, PartialEq)]
pub(super) struct Message {
    /// The rule that was broken, by its name.
    pub(super) rule: String,
    /// Its lines, without the first one.
    pub(super) text: String,
    /// The line of the program that came next: a case says how it went when it is done.
    pub(super) case: String,
}

impl Message {
    /// What it says, whatever the numbers: the same of many lanes is one thing to read.
    pub(super) fn gist(&self) -> String {
        let line = self.text.lines().next().unwrap_or_default();
        format!("{}: {}", self.rule, line.split(|c: char| c.is_ascii_digit()).collect::<String>())
    }
}

/// The messages among what a program printed, in the order in which it did. A line of the program's own begins with three spaces
/// and a letter, as those of `conformance` do.
pub(super) fn messages(printed: &str) -> Vec<Message> {
    let mut found: Vec<Message> = vec![];
    let mut waiting = 0;
    let mut inside = false;
    for line in printed.lines() {
        let rule =
            HEADS.iter().find_map(|head| line.strip_prefix(head)).and_then(|rest| rest.split(" ]").next());
        let own = line.strip_prefix("   ").filter(|rest| rest.starts_with(|c: char| c.is_alphabetic()));
        if let Some(rule) = rule {
            found.push(Message { rule: rule.into(), text: String::new(), case: String::new() });
            inside = true;
        } else if let Some(own) = own {
            found[waiting..].iter_mut().for_each(|message| message.case = own.into());
            waiting = found.len();
            inside = false;
        } else if let Some(last) = found.last_mut().filter(|_| inside && !line.is_empty()) {
            last.text += line;
            last.text.push('\n');
        }
    }
    found
}

/// Messages that are not about the kernels, with reasons.
#[derive(Debug)]
pub(super) struct Known {
    entries: Vec<Entry>,
}

/// One of them.
#[derive(Debug, PartialEq)]
struct Entry {
    rule: String,
    /// What the message contains.
    part: String,
}

impl Known {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads entries: a line `RULE: PART`, and indented lines that say why. `#` begins a comment.
    fn parse(text: &str) -> Result<Self> {
        let mut entries: Vec<(Entry, bool)> = vec![];
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            if line.starts_with(' ') {
                entries.last_mut().with_context(|| format!("a reason of nothing: `{}`", line.trim()))?.1 =
                    true;
            } else {
                let (rule, part) =
                    line.split_once(": ").with_context(|| format!("no `RULE: PART` in `{line}`"))?;
                entries.push((Entry { rule: rule.into(), part: part.into() }, false));
            }
        }
        for (entry, has_reason) in &entries {
            ensure!(has_reason, "{}: no reason", entry.rule);
        }
        Ok(Self { entries: entries.into_iter().map(|(entry, _)| entry).collect() })
    }

    /// The number of the entry that a message is of.
    pub(super) fn of(&self, message: &Message) -> Option<usize> {
        let fits = |entry: &Entry| entry.rule == message.rule && message.text.contains(&entry.part);
        self.entries.iter().position(fits)
    }

    /// Entries by how often each was seen: those that were, and those that were not, in words.
    pub(super) fn told(&self, seen: &[usize]) -> (Vec<String>, Vec<String>) {
        let count = |n: usize| seen.iter().filter(|&&entry| entry == n).count();
        let words = |(n, entry): (usize, &Entry)| (count(n), format!("{} ({})", entry.rule, entry.part));
        let (there, not): (Vec<_>, Vec<_>) =
            self.entries.iter().enumerate().map(words).partition(|(count, _)| *count > 0);
        let there = there.into_iter().map(|(count, words)| format!("{count} x {words}")).collect();
        (there, not.into_iter().map(|(_, words)| words).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
Validation Warning: [ VALIDATION-SETTINGS ] | MessageID = 0x7f1922d7
vkCreateInstance(): slow.

   a device
Validation Error: [ VUID-vkCmdDispatch-storageBuffers-06936 ] | MessageID = 0xace7baff
vkCmdDispatch(): (set = 0, binding = 1) access out of bounds at [259] bytes
Objects: 1
    [0] VkCommandBuffer 0x1

  %tile = OpVariable

Validation Error: [ VUID-vkCmdDispatch-storageBuffers-06936 ] | MessageID = 0xace7baff
vkCmdDispatch(): (set = 0, binding = 1) access out of bounds at [263] bytes
   softmax f32: width 300: 0.130 (2.8 s)
the last line
Validation Error: [ Other ] | MessageID = 0x1
text";

    #[test]
    fn messages_are_read_with_their_case() {
        let found = messages(PRINTED);
        let rules: Vec<_> =
            found.iter().map(|message| (message.rule.as_str(), message.case.as_str())).collect();
        let (bounds, case) =
            ("VUID-vkCmdDispatch-storageBuffers-06936", "softmax f32: width 300: 0.130 (2.8 s)");
        assert_eq!(
            rules,
            [("VALIDATION-SETTINGS", "a device"), (bounds, case), (bounds, case), ("Other", "")]
        );
        assert_eq!(found[1].text.lines().count(), 4);
        assert_eq!(found[3].text, "text\n");
        assert_eq!(found[1].gist(), found[2].gist());
        assert!(messages("   softmax f32: 0.1\nnothing").is_empty());
    }

    #[test]
    fn known_messages_are_told_from_others() {
        let known =
            Known::parse("# why\n\nOther: te\n  because\nVALIDATION-SETTINGS: fast\n  of old\n").unwrap();
        let of: Vec<_> = messages(PRINTED).iter().map(|message| known.of(message)).collect();
        assert_eq!(of, [None, None, None, Some(0)]);
        let (there, not) = known.told(&[0, 0]);
        assert_eq!((there, not), (vec!["2 x Other (te)".into()], vec!["VALIDATION-SETTINGS (fast)".into()]));
    }

    #[test]
    fn entries_have_reasons() {
        assert!(Known::parse("A: b\nC: d\n  why").unwrap_err().to_string().contains("A: no reason"));
        assert!(Known::parse("  why").unwrap_err().to_string().contains("nothing"));
        assert!(Known::parse("A b").unwrap_err().to_string().contains("RULE"));
    }
}

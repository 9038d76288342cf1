//! Which rows: indices and slices, as Python has them.

use anyhow::{Result, ensure};
use std::str::FromStr;

/// `0,5,-1,10:20`: indices and slices of an axis; negative ones count from its end, the end of a slice is not in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    text: String,
    items: Vec<Item>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Item {
    One(i64),
    Slice(Option<i64>, Option<i64>),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let wrong = |_| format!("need indices and slices such as `0,5,-1,10:20`, got `{text}`");
            text.trim().parse::<i64>().map_err(wrong)
        };
        let end = |text: &str| if text.trim().is_empty() { Ok(None) } else { number(text).map(Some) };
        let item = |text: &str| match text.split_once(':') {
            None => number(text).map(Item::One),
            Some((first, last)) => Ok(Item::Slice(end(first)?, end(last)?)),
        };
        Ok(Self { text: text.into(), items: text.split(',').map(item).collect::<Result<_, _>>()? })
    }
}

impl Choice {
    /// The indices of an axis of this length, in the order of the text. `argument` has this text.
    pub(super) fn of(&self, argument: &str, len: usize) -> Result<Vec<usize>> {
        let size = len as i64;
        let from_end = |n: i64| if n < 0 { n + size } else { n };
        ensure!(len > 0, "{argument}: need an axis with an index to choose, got one of length 0");
        let mut chosen = vec![];
        for item in &self.items {
            match *item {
                Item::One(n) => {
                    let at = from_end(n);
                    ensure!(
                        (0..size).contains(&at),
                        "{argument}: need indices from {} to {}, got {n}",
                        -size,
                        size - 1
                    );
                    chosen.push(at as usize);
                }
                Item::Slice(first, last) => {
                    let bound = |n: Option<i64>, default| n.map_or(default, from_end).clamp(0, size) as usize;
                    chosen.extend(bound(first, 0)..bound(last, size));
                }
            }
        }
        ensure!(!chosen.is_empty(), "{argument}: need at least one of {len}, got none by `{}`", self.text);
        Ok(chosen)
    }
}

/// So many of an axis, from its first to its last, spread evenly; all of a shorter one.
pub(super) fn spread(count: usize, len: usize) -> Vec<usize> {
    if len <= count {
        return (0..len).collect();
    }
    (0..count).map(|n| n * (len - 1) / (count - 1).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_and_slices_are_those_of_python() {
        let of = |text: &str| text.parse::<Choice>().unwrap().of("--rows", 8).unwrap();
        assert_eq!(of("0,5,-1"), [0, 5, 7]);
        assert_eq!(of("2:4,:2,6:, -2:"), [2, 3, 0, 1, 6, 7, 6, 7]);
        assert_eq!(of("5:100,3:1"), [5, 6, 7]);
        assert_eq!(of(":").len(), 8);
        for (text, error) in [
            ("8", "--rows: need indices from -8 to 7, got 8"),
            ("-9", "--rows: need indices from -8 to 7, got -9"),
            ("3:3", "--rows: need at least one of 8, got none by `3:3`"),
        ] {
            assert_eq!(text.parse::<Choice>().unwrap().of("--rows", 8).unwrap_err().to_string(), error);
        }
        let none = ":".parse::<Choice>().unwrap().of("--rows", 0).unwrap_err().to_string();
        assert_eq!(none, "--rows: need an axis with an index to choose, got one of length 0");
        for text in ["", "a", "1,,2", "1:2:3", "1.5"] {
            assert!(text.parse::<Choice>().unwrap_err().contains("such as `0,5,-1,10:20`"), "{text}");
        }
    }

    #[test]
    fn a_spread_has_both_ends() {
        assert_eq!(spread(4, 3), [0, 1, 2]);
        assert_eq!(spread(4, 10), [0, 3, 6, 9]);
        assert_eq!(spread(32, 1000).last(), Some(&999));
        assert!(spread(4, 0).is_empty());
    }
}

//! Queries and keys that are features already.

use super::map::{Features, Known, Map, Row};

/// x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Identity;

impl Map for Identity {
    fn query(&self, row: &Row) -> Features {
        Features::plain(row.y.clone())
    }

    fn slope(&self, row: &Row, _: &[Known]) -> Vec<Known> {
        row.y.iter().map(|_| Known::new(1.0, 0.0)).collect()
    }
}

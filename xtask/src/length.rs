//! How much `cargo xtask test` runs.

/// How much to run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Length {
    /// Only what a change of a few lines needs: format, rules, clippy, and tests with fewer drawn cases.
    Quick,
    /// What every change must pass. Of what would take too long each run draws some; where both kinds of tile take the same cases, each
    /// comes under one that is drawn.
    #[default]
    Usual,
    /// Before a release: everything, each case under both kinds of tile, more drawn cases.
    Long,
}

impl Length {
    /// How many cases are drawn for a property, where it is not left to the property.
    pub(crate) fn cases(self) -> Option<&'static str> {
        match self {
            Self::Quick => Some("16"),
            Self::Usual => None,
            Self::Long => Some("256"),
        }
    }
}

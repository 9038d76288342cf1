//! A row of attention.

use crate::AttentionShape;
use std::fmt;

/// One row of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Batch item, below B.
    pub batch: usize,
    /// Query head, below H.
    pub head: usize,
    /// Query, below Lq.
    pub i: usize,
}

impl Position {
    /// The n-th row of `[B, H, Lq]`: batch item after batch item, head after head.
    ///
    /// ```
    /// use wgpu_attention::{AttentionShape, Position};
    /// assert_eq!(Position::of_row(&AttentionShape::new(1, 2, 10, 4), 13), Position { batch: 0, head: 1, i: 3 });
    /// ```
    pub fn of_row(shape: &AttentionShape, n: usize) -> Self {
        let (rest, i) = (n / shape.q_len, n % shape.q_len);
        Self { batch: rest / shape.heads, head: rest % shape.heads, i }
    }

    /// Its place in `[B, H, Lq]`.
    pub(crate) fn row(&self, shape: &AttentionShape) -> usize {
        (self.batch * shape.heads + self.head) * shape.q_len + self.i
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {}, head {}, query {}", self.batch, self.head, self.i)
    }
}

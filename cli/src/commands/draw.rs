//! `draw`: a mask as text and as SVG.

use super::sizes::Sizes;
use crate::output::{check_writable, say, write_whole};
use crate::pattern::PatternArgs;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use wgpu_attention::BlockMask;

/// Draw a pattern's mask, block by block as text, and on request as SVG
///
/// Patterns that differ between heads or batch items are drawn for each of the first four.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wgpu-attention draw --pattern causal --len 1024
  wgpu-attention draw --pattern 'window:before=200,after=0' --len 2048 --kv-len 4096 --svg window.svg
  wgpu-attention draw --pattern 'causal & document:ids=[0,0,0,1,1,1,1,2]' --len 8 --pairs")]
pub(super) struct Draw {
    #[command(flatten)]
    pattern: PatternArgs,
    #[command(flatten)]
    sizes: Sizes,
    /// Draw pair by pair instead: a line a query, a character a key (small masks)
    #[arg(long)]
    pairs: bool,
    /// Also write the first head of the first batch item as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Past this many pairs a drawing of them is no drawing.
const MOST_PAIRS: usize = 1 << 20;

impl Draw {
    /// Always all is well, or an error.
    pub(super) fn run(&self) -> Result<bool> {
        self.svg.as_deref().map_or(Ok(()), check_writable)?;
        let mask = BlockMask::new(&self.pattern.pattern, self.sizes.grid())?;
        if self.pairs {
            let pairs = self.sizes.len.saturating_mul(self.sizes.kv_len());
            anyhow::ensure!(pairs <= MOST_PAIRS, "--pairs: need at most {MOST_PAIRS} pairs, got {pairs}");
            say!("{}", mask.pairs(0, 0).trim_end())?;
        } else {
            say!("{}", mask.to_string().trim_end())?;
        }
        if let Some(path) = &self.svg {
            write_whole(path, mask.to_svg(&self.pattern.pattern.to_json()).as_bytes())?;
            eprintln!("wrote {}", path.display());
        }
        Ok(true)
    }
}

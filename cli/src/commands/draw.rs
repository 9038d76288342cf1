//! `draw`: a mask as text and as SVG.

use super::sizes::Sizes;
use crate::output::{check_writable, say, write_whole};
use crate::pattern::PatternArgs;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use wgpu_attention::{BlockMask, Pattern};

/// Draw a pattern's mask as text, block by block, or pair by pair where it is small, and on request as SVG
///
/// Masks of fewer than 160 queries and keys are drawn pair by pair, unless --block asks for blocks. Patterns that differ between
/// heads or batch items are drawn for each of the first four.
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
    /// Draw pair by pair whatever the size, and nothing else: a line per query, a character per key
    #[arg(long)]
    pairs: bool,
    /// Also write the first head of the first batch item as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Past this many pairs a drawing of them is no drawing.
const MOST_PAIRS: usize = 1 << 20;
/// From this length on a picture of blocks says more than one of pairs, which no terminal is wide enough for.
const LONG: usize = 160;
/// Heads that are drawn, at most.
const SITES: usize = 4;

impl Draw {
    /// Always all is well, or an error.
    pub(super) fn run(&self) -> Result<bool> {
        self.svg.as_deref().map_or(Ok(()), check_writable)?;
        let mask = BlockMask::new(&self.pattern.pattern, self.sizes.grid())?;
        let small = self.sizes.len.max(self.sizes.kv_len()) < LONG && self.sizes.block.is_none();
        if self.pairs {
            let pairs = self.sizes.len.saturating_mul(self.sizes.kv_len());
            anyhow::ensure!(pairs <= MOST_PAIRS, "--pairs: need at most {MOST_PAIRS} pairs, got {pairs}");
            say!("{}", self.all_pairs(&mask).trim_end())?;
        } else if small {
            let text = mask.to_string();
            say!("{}", text.lines().next().unwrap_or_default())?;
            say!("█ kept  · left out\n{}", self.all_pairs(&mask).trim_end())?;
        } else {
            say!("{}", mask.to_string().trim_end())?;
        }
        if let Some(path) = &self.svg {
            write_whole(path, mask.to_svg(&self.pattern.pattern.to_json()).as_bytes())?;
            eprintln!("wrote {}", path.display());
        }
        Ok(true)
    }

    /// The pairs of the heads that differ, the first of them.
    fn all_pairs(&self, mask: &BlockMask) -> String {
        let varies = self.pattern.pattern.varies();
        let count = |differ: bool, count: usize| if differ { count } else { count.min(1) };
        let heads = count(varies.heads, self.sizes.heads);
        let sites: Vec<_> = (0..count(varies.batch, self.sizes.batch))
            .flat_map(|batch| (0..heads).map(move |head| (batch, head)))
            .collect();
        let mut text = String::new();
        for &(batch, head) in sites.iter().take(SITES) {
            if sites.len() > 1 {
                text += &format!("batch item {batch}, head {head}:\n");
            }
            text += &mask.pairs(batch, head);
        }
        if sites.len() > SITES {
            text += &format!("and {} more\n", sites.len() - SITES);
        }
        text
    }
}

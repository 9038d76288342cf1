//! `gallery`: the pictures of the README.

use crate::output::{say, write_whole};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use wgpu_attention::{AnyPattern, BlockGrid, BlockMask};

/// Draw every pattern into a folder of SVG files: the gallery of the README
#[derive(Debug, Args)]
pub(super) struct Gallery {
    /// The folder, which must exist
    #[arg(long, value_name = "DIR", default_value = "docs/masks")]
    folder: PathBuf,
    /// Write nothing; fail where a file is not what would be written
    #[arg(long)]
    check: bool,
}

/// Queries and keys of a picture: small enough to see each pair.
const LEN: usize = 48;

/// File name and pattern.
const PICTURES: [(&str, &str); 18] = [
    ("full", "full"),
    ("causal", "causal"),
    ("window", "window:before=6,after=0"),
    ("dilated", "dilated:before=12,after=0,step=3"),
    ("strided", "strided:stride=6"),
    ("strided_bidirectional", "strided:stride=6,causal=false"),
    ("fixed", "fixed:stride=8,summary=2"),
    ("fixed_bidirectional", "fixed:stride=8,summary=2,causal=false"),
    ("global", "global:tokens=[4,30]"),
    ("random", "random:block=4,count=2,seed=7"),
    ("bigbird", "bigbird:block=4,window=3,global=1,random=1,seed=7"),
    ("longformer", "longformer:window=8,global=[0,24]"),
    ("prefix", "prefix:len=10"),
    ("first", "first:count=4 & causal | window:before=6"),
    (
        "document",
        "causal & document:ids=[0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2,2,2,2,2,2,2,2,2,2,2,2,2,2]",
    ),
    (
        "permutation",
        "permutation:order=[0,29,10,39,20,1,30,11,40,21,2,31,12,41,22,3,32,13,42,23,4,33,14,43,24,5,34,15,44,25,6,35,16,45,26,7,36,17,46,27,8,37,18,47,28,9,38,19]",
    ),
    ("key_lengths", "key_lengths:lengths=[35]"),
    ("not", "window:before=14,after=14 & !window:before=4,after=4"),
];

impl Gallery {
    /// All is well, or an error.
    pub(super) fn run(&self) -> Result<bool> {
        for (name, text) in PICTURES {
            let pattern = AnyPattern::parse(text)?;
            let svg = BlockMask::new(&pattern, BlockGrid::new(LEN, LEN).blocks(16, 16))?.to_svg(text);
            let path = self.folder.join(name).with_extension("svg");
            if !self.check {
                write_whole(&path, svg.as_bytes())?;
                continue;
            }
            let found =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if found != svg {
                bail!(
                    "{} is not what `wgpu-attention gallery` writes: run it and look at the change",
                    path.display()
                );
            }
        }
        say!("{} pictures in {}", PICTURES.len(), self.folder.display())?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_what_the_patterns_are() {
        let folder = [env!("CARGO_MANIFEST_DIR"), "..", "docs", "masks"].iter().collect();
        Gallery { folder, check: true }.run().unwrap();
        let readme = include_str!("../../../README.md");
        for (name, _) in PICTURES {
            assert!(readme.contains(&format!("docs/masks/{name}.svg")), "{name}");
        }
    }

    #[test]
    fn a_stale_picture_is_noticed() {
        let folder = std::env::temp_dir().join(format!("wgpu-attention-gallery-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Gallery { folder: folder.clone(), check: false }.run().unwrap();
        std::fs::write(folder.join("causal.svg"), "<svg/>").unwrap();
        let error = Gallery { folder: folder.clone(), check: true }.run().unwrap_err().to_string();
        assert!(error.contains("causal.svg"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}

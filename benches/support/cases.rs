//! The patterns of `wgpu-attention bench`, built without parsing: a test of the command line compares the two.

use wgpu_attention::pattern::{And, BigBird, Dilated, Document, Fixed, Longformer, Prefix, Random, Strided};
use wgpu_attention::{Causal, Full, Pattern, Window};

/// A pattern with its name.
pub(crate) type Named = (&'static str, Box<dyn Pattern>);

/// With parameters that suit a length: strides near its square root.
pub(crate) fn patterns(n: usize) -> wgpu_attention::Result<Vec<Named>> {
    let tokens = (0..16).map(|token| token * n / 16).collect::<Vec<usize>>();
    // Eight packed sequences of equal length.
    let ids = (0..n).map(|i| (8 * i / n) as u32).collect::<Vec<u32>>();
    Ok(vec![
        ("full", Box::new(Full)),
        ("causal", Box::new(Causal)),
        ("window", Box::new(Window { before: 511, after: 0 })),
        ("dilated", Box::new(Dilated::new(4 * n.isqrt(), 0, 4)?)),
        ("strided", Box::new(Strided::new(n.isqrt())?)),
        ("fixed", Box::new(Fixed::new(n.isqrt(), 8)?)),
        ("random", Box::new(Random { block: 64, count: 6, seed: 7 })),
        ("bigbird", Box::new(BigBird::new(64, 3, 2, 3, 7)?)),
        ("longformer", Box::new(Longformer::new(512, tokens)?)),
        ("prefix", Box::new(Prefix { len: n / 4 })),
        ("document", Box::new(And(Causal, Document::new(ids)))),
    ])
}

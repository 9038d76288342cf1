//! The names of the kernels for attention and for matrix products. Which one runs is decided in `gpu/attention/path.rs`.

/// A family of kernels for the same computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum KernelPath {
    /// f32 arithmetic on the ordinary units; any device, no features.
    #[default]
    Scalar,
    /// Products of f16 with f32 sums in cooperative matrices: inputs in f16, on a device with
    /// `cooperative_features`, whose matrices `Options::matrices` names. Attention rounds its weights to f16 before they meet
    /// the values, its gradients weights and derivatives.
    Cooperative,
}

impl KernelPath {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Scalar, Self::Cooperative];
}

impl std::fmt::Display for KernelPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Cooperative => "cooperative",
        })
    }
}

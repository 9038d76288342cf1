//! Ceilings, lengths and figures in words.

use wgpu_attention_bench::record::CeilingKind;

/// A ceiling in words.
pub(crate) fn ceiling_name(kind: CeilingKind) -> &'static str {
    match kind {
        CeilingKind::FmaF32 => "fma f32",
        CeilingKind::FmaF16 => "fma f16",
        CeilingKind::MatrixF16 => "matrix units f16",
        CeilingKind::Copy => "copy",
        CeilingKind::Read => "read",
        CeilingKind::Workgroup => "workgroup memory",
        CeilingKind::Launch => "launch",
    }
}

/// A length in as few characters as it takes: `512`, `2k`, `1M`.
pub(crate) fn short_len(len: usize) -> String {
    match len {
        len if len >= 1 << 20 && len.is_multiple_of(1 << 20) => format!("{}M", len >> 20),
        len if len >= 1 << 10 && len.is_multiple_of(1 << 10) => format!("{}k", len >> 10),
        len => len.to_string(),
    }
}

/// With so many digits, or nothing.
pub(crate) fn digits(value: Option<f64>, digits: usize) -> String {
    value.map_or(String::new(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!([512, 1000, 2048, 65_536, 1 << 20].map(short_len), ["512", "1000", "2k", "64k", "1M"]);
    }
}

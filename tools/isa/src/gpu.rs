//! The GPUs that are not there: whose compiler speaks for each, and how a driver is told that it is there.

use crate::assembly::Compiler;

/// A GPU.
#[derive(Debug)]
pub struct Gpu {
    /// Its name on the command line and of its files.
    pub name: &'static str,
    /// What it stands for.
    pub what: &'static str,
    /// The compiler in its driver.
    pub compiler: Compiler,
    /// The launcher that starts a program with its driver and that driver's stand-in for a kernel.
    pub launcher: &'static str,
    /// Whether budgets hold for every kernel; else for one of each family ([`family`]), since it takes so long.
    pub every: bool,
    /// Variables of the environment that choose it among those that the stand-in knows.
    pub settings: &'static [(&'static str, &'static str)],
}

/// All of them, those whose compilers take longest first.
pub const GPUS: [Gpu; 9] = [
    Gpu {
        name: "dg2",
        what: "Intel Xe-HPG (Arc A770), brw",
        compiler: Compiler::Brw,
        launcher: "intel",
        every: false,
        settings: &[("INTEL_STUB_GPU_PLATFORM", "dg2")],
    },
    Gpu {
        name: "bmg",
        what: "Intel Xe2 (Arc B580), brw",
        compiler: Compiler::Brw,
        launcher: "intel",
        every: false,
        settings: &[("INTEL_STUB_GPU_PLATFORM", "bmg")],
    },
    Gpu {
        name: "ampere",
        what: "NVIDIA Ampere (GeForce RTX 30), NAK",
        compiler: Compiler::Nak,
        launcher: "nouveau",
        every: false,
        settings: &[("NOUVEAU_CHIPSET", "172")],
    },
    Gpu {
        name: "adreno740",
        what: "Qualcomm Adreno 740, ir3",
        compiler: Compiler::Ir3,
        launcher: "freedreno",
        every: false,
        settings: &[("FD_GPU_ID", "740")],
    },
    Gpu {
        name: "navi31",
        what: "AMD RDNA3 (Radeon RX 7900), ACO",
        compiler: Compiler::Aco,
        launcher: "radeon",
        every: true,
        settings: &[("AMDGPU_GPU_ID", "navi31")],
    },
    Gpu {
        name: "navi21",
        what: "AMD RDNA2 (Radeon RX 6800), ACO",
        compiler: Compiler::Aco,
        launcher: "radeon",
        every: true,
        settings: &[("AMDGPU_GPU_ID", "navi21")],
    },
    Gpu {
        name: "gfx1201",
        what: "AMD RDNA4 (Radeon RX 9070), ACO",
        compiler: Compiler::Aco,
        launcher: "radeon",
        every: false,
        settings: &[("AMDGPU_GPU_ID", "gfx1201")],
    },
    Gpu {
        name: "vega10",
        what: "AMD GCN 5 (Radeon RX Vega), ACO",
        compiler: Compiler::Aco,
        launcher: "radeon",
        every: false,
        settings: &[("AMDGPU_GPU_ID", "vega10")],
    },
    Gpu {
        name: "m1",
        what: "Apple M1, AGX of Honeykrisp (not Apple's own compiler)",
        compiler: Compiler::Agx,
        launcher: "asahi",
        every: false,
        settings: &[("AGX_MESA_DEBUG", "shaders")],
    },
];

/// The GPU of this name.
pub fn named(name: &str) -> Option<&'static Gpu> {
    GPUS.iter().find(|gpu| gpu.name == name)
}

/// What kernels of one family share: the first two words of their labels, and sizes and tile where these have any.
pub fn family(label: &str) -> Vec<&str> {
    let words: Vec<&str> = label.split_whitespace().collect();
    let is_name = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_size = |word: &str| {
        let digits = word.strip_prefix("dv").or(word.strip_prefix('d'));
        digits.is_some_and(|digits| digits.parse::<u32>().is_ok())
    };
    let name = words.iter().take(2).take_while(is_name).copied();
    let sizes = words.iter().copied().filter(|word| is_size(word));
    let flags = words
        .iter()
        .copied()
        .filter(|word| ["narrow", "wide", "far", "tall", "q-resident", "by-subgroup"].contains(word));
    let tiles = ["tile", "matrix", "few", "chunk", "v"];
    let tile = words.windows(2).filter(|pair| tiles.contains(&pair[0])).map(|pair| pair[1]);
    name.chain(sizes).chain(tile).chain(flags).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_by_storage_and_by_options_are_of_one_family() {
        let plain = "attention d64 dv64 f32->f32 tile 64x32 chunk 8 v 16 block 64x64";
        assert_eq!(family(plain), ["attention", "d64", "dv64", "64x32", "8", "16"]);
        assert_eq!(
            family("attention d64 dv64 bf16->bf16 tile 64x32 chunk 8 v 16 block 64x64 lse bias"),
            family(plain)
        );
        assert_ne!(family("attention d128 dv128 f32->f32 tile 32x64 chunk 8 v 8 block 64x64"), family(plain));
        assert_eq!(family("column sums plain f32->f32"), ["column", "sums"]);
        assert_eq!(family("matmul f16xf16->f16 matrix 128x128"), ["matmul", "128x128"]);
    }

    #[test]
    fn names_are_told_apart() {
        assert!(GPUS.iter().all(|gpu| named(gpu.name).is_some_and(|found| found.what == gpu.what)));
        assert!(named("voodoo").is_none());
    }
}

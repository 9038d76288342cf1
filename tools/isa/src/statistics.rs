//! What is known of a shader on a GPU, in words that are the same for all compilers.

use crate::assembly::Compiler;
use crate::gpu::Gpu;
use crate::listing::{Loop, Mix, hot_loops, whole};

/// What a compiler says of a shader.
#[derive(Debug, Clone)]
pub struct Statistics {
    /// The shader.
    pub label: String,
    /// The GPU.
    pub gpu: &'static Gpu,
    /// Lanes of a subgroup.
    pub width: u32,
    /// Lanes of a workgroup.
    pub lanes: u32,
    /// Workgroup memory that the shader asks for, in bytes.
    pub workgroup_bytes: u32,
    /// All numbers, by the driver's names for them.
    pub numbers: Vec<(String, u64)>,
    /// What the whole of it is made of.
    pub whole: Mix,
    /// The loops with the arithmetic.
    pub loops: Vec<Loop>,
    /// The loop around all of those, unless it is one of them.
    pub around: Option<Loop>,
    /// The instructions.
    pub assembly: String,
}

/// What the shader itself tells.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The shader.
    pub label: String,
    /// Lanes of a workgroup.
    pub lanes: u32,
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
}

impl Statistics {
    /// Reads what a driver said.
    pub fn new(
        gpu: &'static Gpu,
        asked: Asked,
        width: u32,
        numbers: Vec<(String, u64)>,
        assembly: String,
    ) -> Self {
        let items = gpu.compiler.read(&assembly);
        let Asked { label, lanes, workgroup_bytes } = asked;
        let (whole, (loops, around)) = (whole(&items), hot_loops(&items));
        Self { label, gpu, width, lanes, workgroup_bytes, numbers, whole, loops, around, assembly }
    }

    /// The number that the driver calls by this name; 0 where it has none.
    pub fn number(&self, name: &str) -> u64 {
        self.numbers.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
    }

    /// The sum of these numbers.
    fn sum(&self, names: &[&str]) -> u64 {
        names.iter().map(|name| self.number(name)).sum()
    }

    /// Registers, as [`registers_are`] says.
    pub fn registers(&self) -> u64 {
        self.number(match self.gpu.compiler {
            Compiler::Aco => "VGPRs",
            Compiler::Agx => "GPRs",
            Compiler::Brw => "Max live registers",
            Compiler::Ir3 => "Registers used",
            Compiler::Nak => "Number of GPRs",
        })
    }

    /// Anything but 0 says that values went to memory: registers or instructions, as the compiler counts.
    pub fn spills(&self) -> u64 {
        self.sum(match self.gpu.compiler {
            Compiler::Aco => &["Spilled VGPRs", "Spilled SGPRs", "Scratch size"],
            Compiler::Agx | Compiler::Brw => &["Spills", "Fills"],
            Compiler::Ir3 => &["STP Count", "LDP Count"],
            Compiler::Nak => &["Spills to memory", "Fills from memory"],
        })
    }

    /// How much fits at a time, as [`occupancy_is`] says.
    pub fn occupancy(&self) -> u64 {
        match self.gpu.compiler {
            Compiler::Aco => self.number("Subgroups per SIMD"),
            Compiler::Agx => self.number("Threads"),
            Compiler::Brw => self.width.into(),
            Compiler::Ir3 => self.number("Max Waves Per Core"),
            Compiler::Nak => self.number("Max warps/SM"),
        }
    }

    /// The smallest share of fma among the arithmetic of a hot loop, in percent; 0 without a hot loop.
    pub fn fma_percent(&self) -> f64 {
        let shares = self.loops.iter().map(Loop::fma_percent);
        if self.loops.is_empty() { 0.0 } else { shares.fold(100.0, f64::min) }
    }
}

/// What a compiler's registers are.
pub fn registers_are(compiler: Compiler) -> &'static str {
    match compiler {
        Compiler::Aco => "vector registers of a lane, of 256",
        Compiler::Agx => "half registers of a lane, of 256",
        Compiler::Brw => "registers of a thread that live at a time, of 128 (where more, they spill)",
        Compiler::Ir3 => "registers of 4 words of a lane, of 64",
        Compiler::Nak => "registers of a lane, of 255",
    }
}

/// What a compiler's occupancy is.
pub fn occupancy_is(compiler: Compiler) -> &'static str {
    match compiler {
        Compiler::Aco => "waves that a SIMD can hold, of 16 (GCN: 10)",
        Compiler::Agx => "lanes that a core can hold, of 1,024",
        Compiler::Brw => "lanes of a thread: 8, 16 or 32; a vector engine always holds 8 threads",
        Compiler::Ir3 => "waves that a core can hold, of 16",
        Compiler::Nak => "warps that a multiprocessor can hold, of 48, workgroup memory left out",
    }
}

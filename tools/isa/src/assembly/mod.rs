//! What each compiler's listing says, in words that are the same for all: one file per compiler.

mod aco;
mod agx;
mod brw;
mod ir3;
mod nak;

/// A compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiler {
    /// Of RADV, for AMD.
    Aco,
    /// Of Honeykrisp, for Apple.
    Agx,
    /// Of ANV, for Intel.
    Brw,
    /// Of Turnip, for Qualcomm.
    Ir3,
    /// Of NVK, for NVIDIA.
    Nak,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A place that branches lead to.
    Place(String),
    /// An instruction.
    Instruction {
        /// What it does.
        kind: Kind,
        /// How often it counts.
        times: u32,
        /// The place that it may lead to.
        to: Option<String>,
    },
    /// A branch that is always taken, to a place; without one, an end.
    Jump(Option<String>),
}

/// What an instruction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A fused multiply-add of floating-point numbers, for each lane.
    Fma,
    /// A product of matrices.
    Matrix,
    /// Other arithmetic for each lane.
    Vector,
    /// Work for all lanes at once, or none: scalars, waits, fences.
    Scalar,
    /// A load from workgroup memory, in bytes per lane.
    Load(u32),
    /// A store to workgroup memory, in bytes per lane; an atomic operation counts as one.
    Store(u32),
    /// An access to a buffer.
    Memory,
    /// An access to what did not fit the registers.
    Scratch,
    /// A branch.
    Branch,
    /// A barrier.
    Barrier,
}

impl Compiler {
    /// Reads a listing.
    pub fn read(self, listing: &str) -> Vec<Item> {
        match self {
            Self::Aco => aco::read(listing),
            Self::Agx => agx::read(listing),
            Self::Brw => brw::read(listing),
            Self::Ir3 => ir3::read(listing),
            Self::Nak => nak::read(listing),
        }
    }
}

impl Item {
    /// An instruction that counts once and leads nowhere.
    fn one(kind: Kind) -> Self {
        Self::Instruction { kind, times: 1, to: None }
    }

    /// A branch.
    fn branch(to: Option<&str>) -> Self {
        Self::Instruction { kind: Kind::Branch, times: 1, to: to.map(String::from) }
    }
}

/// Whether a name begins with one of these.
fn begins(name: &str, with: &[&str]) -> bool {
    with.iter().any(|prefix| name.starts_with(prefix))
}

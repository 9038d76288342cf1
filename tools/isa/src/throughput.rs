//! What a GPU's core can do per clock, from published figures, and what that makes of the hot loops.
//!
//! A core is a multiprocessor (NVIDIA), a compute unit (AMD), an Xe-core (Intel), a core (Apple) or a shader processor (Qualcomm).
//! For one turn of a subgroup of `w` lanes a loop takes the clocks of whatever is busiest:
//!
//! - the fma: `fma w / lanes`;
//! - the arithmetic: with the fma, as [`Others`] says;
//! - the issue of instructions: `all / issue`, where one scheduler issues all kinds;
//! - workgroup memory: `bytes w / bytes per clock`. Every lane's bytes count, also where lanes read the same: an upper bound of the time.
//!
//! Turns: the hot loops do all the fma. A kernel of attention needs `rows keys (d + dv) / lanes` of them per tile of keys, which its
//! label tells, and the loop over tiles, around all hot loops, turns once per tile; what fma it has itself (there a compiler has unrolled
//! some of the inner loops) are taken off, and the rest is divided equally among the other hot loops, however far those are unrolled.
//! Where the label does not tell, the hot loops do equal parts, and what is around them is left out. A compiler's own estimate of
//! cycles is no help: it weighs a loop by its depth, never by its turns.
//!
//! Left out: loops between those (staging), the latency of memory, conflicts of its banks, what spills cost. What stands behind branches in
//! the loop over tiles (masks, what is rare) is left out, too: that is a tile of [`Tiles::Full`]; for [`Tiles::Masked`] all of it counts as
//! if it ran. So a share is a prediction to be confirmed or refuted, not a bound.

use crate::listing::{Loop, Mix};
use crate::statistics::Statistics;

/// What a core does per clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Core {
    /// What the vendor calls it.
    pub name: &'static str,
    /// Lanes that do one f32 fma each.
    pub lanes: f64,
    /// Which lanes do the arithmetic that is no fma: integers, comparisons, moves.
    pub others: Others,
    /// Lanes that an instruction for all lanes takes of those, where it takes any.
    pub scalar_lanes: f64,
    /// Instructions issued, all kinds together; none where each kind has an issue slot of its own.
    pub issue: Option<f64>,
    /// Bytes of workgroup memory; none where no figure is published.
    pub workgroup_bytes: Option<f64>,
    /// Where the figures are from.
    pub source: &'static str,
}

/// Which lanes do arithmetic that is no fma.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Others {
    /// The same: each takes as long as an fma.
    Same,
    /// Only so many of the same; fma run beside them on the rest.
    AtMost(f64),
    /// So many of their own, beside the fma.
    Own(f64),
    /// So many of the same, and no fma meanwhile: fma alone are issued two at a time.
    Alone(f64),
}

/// What keeps a loop from the peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The fma themselves.
    Fma,
    /// Arithmetic beside the fma.
    Arithmetic,
    /// The issue of instructions.
    Issue,
    /// Workgroup memory.
    WorkgroupMemory,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fma => "fma",
            Self::Arithmetic => "other arithmetic",
            Self::Issue => "issue",
            Self::WorkgroupMemory => "workgroup memory",
        })
    }
}

/// Which tiles of keys a prediction is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tiles {
    /// All pairs are attended, as by all but few tiles of most masks.
    Full,
    /// Each has a mask, and everything that may be there.
    Masked,
}

/// A prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Share of the peak of f32 fma that the hot loops cannot exceed, in percent.
    pub percent: f64,
    /// What binds the loop that takes the longest.
    pub bound: Bound,
}

/// RDNA and GCN issue one instruction of each kind per clock and SIMD, from different waves.
const SIDE_BY_SIDE: Option<f64> = None;

/// NVIDIA's.
const AMPERE: Core = Core {
    name: "multiprocessor",
    lanes: 128.0,
    others: Others::AtMost(64.0),
    scalar_lanes: 0.0,
    issue: Some(4.0),
    workgroup_bytes: Some(128.0),
    source: "NVIDIA, Ampere GA102 white paper (128 FP32 lanes, 64 of them also INT32; 4 schedulers; 128 bytes of shared memory per \
             clock); CUDA C++ Programming Guide, table of arithmetic throughput, 8.6",
};

/// Intel's of Xe2.
const XE2: Core = Core {
    name: "Xe-core",
    lanes: 128.0,
    others: Others::Own(128.0),
    scalar_lanes: 16.0,
    issue: SIDE_BY_SIDE,
    workgroup_bytes: Some(128.0),
    source: "Intel on Xe2 (8 vector engines of 16 lanes, integers beside them); a tuning study of ExecuTorch's Vulkan kernels on Arc B580 \
             and B70 measured 7.2 TB/s of workgroup memory on 20 Xe-cores at 2.85 GHz, 127 bytes per clock",
};

/// Intel's of Xe-HPG.
const XE_HPG: Core = Core {
    scalar_lanes: 8.0,
    source: "Intel, Introduction to the Xe-HPG Architecture (16 vector engines of 8 lanes, integers beside them); bytes of workgroup \
             memory assumed to be those of Xe2",
    ..XE2
};

/// Qualcomm's.
const ADRENO: Core = Core {
    name: "shader processor",
    lanes: 128.0,
    others: Others::Same,
    scalar_lanes: 0.0,
    issue: SIDE_BY_SIDE,
    workgroup_bytes: None,
    source: "no figure of Qualcomm's: the lanes cancel out of a share, and workgroup memory is left out",
};

/// Apple's.
const M1: Core = Core {
    name: "core",
    issue: Some(4.0),
    source: "philipturner/metal-benchmarks, measured (128 lanes; integers on the same, not issued beside fma); workgroup memory left out",
    ..ADRENO
};

/// AMD's of GCN.
const GCN: Core = Core {
    name: "compute unit",
    lanes: 64.0,
    others: Others::Same,
    scalar_lanes: 0.0,
    issue: SIDE_BY_SIDE,
    workgroup_bytes: Some(128.0),
    source: "AMD, GCN white paper (four SIMD16, 128 bytes of LDS per clock)",
};

/// AMD's of RDNA2.
const RDNA2: Core =
    Core { source: "AMD, RDNA white paper (two SIMD32 per compute unit, 128 bytes of LDS per clock)", ..GCN };

/// AMD's of RDNA3 and RDNA4.
const RDNA3: Core = Core {
    lanes: 128.0,
    others: Others::Alone(64.0),
    source: "AMD, RDNA3 instruction set architecture (two SIMD32, f32 fma of wave64 or VOPD two at a time); AMD, RDNA white paper (LDS)",
    ..GCN
};

/// The core of a GPU by its name.
pub fn core(gpu: &str) -> Option<Core> {
    Some(match gpu {
        "ampere" => AMPERE,
        "dg2" => XE_HPG,
        "bmg" => XE2,
        "adreno740" => ADRENO,
        "m1" => M1,
        "navi21" => RDNA2,
        "navi31" | "gfx1201" => RDNA3,
        "vega10" => GCN,
        _ => return None,
    })
}

/// Clocks that a turn of a loop takes a core, and what takes them.
fn clocks(core: &Core, width: f64, own: &Mix) -> (f64, Bound) {
    let [all, fma, vector, scalar] = [own.all, own.fma, own.vector, own.scalar].map(f64::from);
    let others = (vector - fma) * width + scalar * core.scalar_lanes;
    let alone = fma * width / core.lanes;
    let arithmetic = match core.others {
        Others::Same => alone + others / core.lanes,
        Others::AtMost(lanes) => (alone + others / core.lanes).max(others / lanes),
        Others::Own(lanes) => others / lanes,
        Others::Alone(lanes) => alone + others / lanes,
    };
    let bytes = f64::from(own.loads.bytes() + own.stores.bytes()) * width;
    // In this order, so that of equals the first is named.
    let times = [
        (alone, Bound::Fma),
        (arithmetic, Bound::Arithmetic),
        (core.issue.map_or(0.0, |issue| all / issue), Bound::Issue),
        (core.workgroup_bytes.map_or(0.0, |per_clock| bytes / per_clock), Bound::WorkgroupMemory),
    ];
    times.into_iter().fold((0.0, Bound::Fma), |most, next| if next.0 > most.0 { next } else { most })
}

/// The share of the peak that the hot loops of a shader reach; none without fma in them, and for matrix units.
pub fn predict(row: &Statistics, tiles: Tiles) -> Option<Prediction> {
    let core = core(row.gpu.name)?;
    let width = f64::from(row.width);
    if row.loops.is_empty() || row.loops.iter().any(|one| one.own.fma == 0 || one.own.matrix > 0) {
        return None;
    }
    let (mut least, mut sum, mut longest) = (0.0, 0.0, (0.0, Bound::Fma));
    for (own, turns) in turns(&row.loops, row.around.as_ref(), fma_per_tile(row), tiles) {
        let (clocks, bound) = clocks(&core, width, own);
        least += turns * f64::from(own.fma) * width / core.lanes;
        sum += turns * clocks;
        longest = if turns * clocks > longest.0 { (turns * clocks, bound) } else { longest };
    }
    Some(Prediction { percent: 100.0 * least / sum, bound: longest.1 })
}

/// Fma of a lane per tile of keys, where the label tells.
fn fma_per_tile(row: &Statistics) -> Option<f64> {
    let mut words = row.label.split_whitespace();
    let number = |text: &str| text.parse::<f64>().ok();
    words.next().filter(|name| *name == "attention")?;
    let head_dim = number(words.next()?.strip_prefix('d')?)?;
    let value_dim = number(words.next()?.strip_prefix("dv")?)?;
    let (rows, keys) = words.skip_while(|word| *word != "tile").nth(1)?.split_once('x')?;
    Some(number(rows)? * number(keys)? * (head_dim + value_dim) / f64::from(row.lanes))
}

/// How often loops turn, in proportion: the hot ones, and what is around them where it counts.
fn turns<'a>(
    hot: &'a [Loop],
    around: Option<&'a Loop>,
    fma_per_tile: Option<f64>,
    tiles: Tiles,
) -> Vec<(&'a Mix, f64)> {
    let fma = |one: &Loop| f64::from(one.own.fma);
    let over_tiles = around.or(hot.iter().find(|one| one.around_all));
    let once = |one: &'a Loop| if tiles == Tiles::Full { &one.shortest } else { &one.own };
    let of_once = |one: &'a Loop| f64::from(once(one).fma);
    let rest = over_tiles.and_then(|over| Some(fma_per_tile? - of_once(over))).filter(|rest| *rest > 0.0);
    match (over_tiles, rest) {
        (Some(over), Some(rest)) => {
            let others: Vec<_> = hot.iter().filter(|one| !std::ptr::eq(*one, over)).collect();
            let part = rest / others.len().max(1) as f64;
            let others = others.into_iter().map(|one| (&one.own, part / fma(one)));
            others.chain([(once(over), 1.0)]).collect()
        }
        _ => hot.iter().map(|one| (&one.own, 1.0 / fma(one))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembly::{Item, Kind};
    use crate::gpu::{GPUS, named};
    use crate::listing::{Loop, whole};
    use crate::statistics::Asked;

    /// A loop of these instructions.
    fn turn(kinds: &[(Kind, u32)]) -> Loop {
        let items: Vec<_> =
            kinds.iter().map(|&(kind, times)| Item::Instruction { kind, times, to: None }).collect();
        let own = whole(&items);
        Loop { place: "1".into(), shortest: own.clone(), own, innermost: true, around_all: false }
    }

    /// What is predicted of loops on a GPU.
    fn prediction(gpu: &str, width: u32, loops: Vec<Loop>) -> Option<(u32, Bound)> {
        let row = Statistics::new(named(gpu).unwrap(), Asked::default(), width, Vec::new(), String::new());
        predict(&Statistics { loops, ..row }, Tiles::Full).map(|one| (one.percent.round() as u32, one.bound))
    }

    #[test]
    fn each_gpu_has_figures_with_their_source() {
        for gpu in GPUS {
            let core = core(gpu.name).unwrap();
            assert!(core.lanes >= 64.0 && core.source.len() > 20, "{}", gpu.name);
        }
        assert_eq!(core("none"), None);
    }

    #[test]
    fn fma_alone_reach_the_peak_everywhere() {
        for gpu in GPUS {
            let found = prediction(gpu.name, 64, vec![turn(&[(Kind::Fma, 100)])]);
            assert_eq!(found, Some((100, Bound::Fma)), "{}", gpu.name);
        }
    }

    #[test]
    fn each_bound_binds() {
        // 64 fma beside 8 loads of 16 bytes by 32 lanes: 16 clocks of fma, 32 of workgroup memory.
        let wide = turn(&[(Kind::Fma, 64), (Kind::Load(16), 8)]);
        assert_eq!(prediction("ampere", 32, vec![wide]), Some((50, Bound::WorkgroupMemory)));
        // 64 fma and 16 others that no lanes are wanted for: 80 instructions.
        let long = turn(&[(Kind::Fma, 64), (Kind::Scalar, 16)]);
        assert_eq!(prediction("ampere", 32, vec![long]), Some((80, Bound::Issue)));
        // 64 lanes of 128 do integers.
        let integers = turn(&[(Kind::Fma, 50), (Kind::Vector, 100)]);
        assert_eq!(prediction("ampere", 32, vec![integers.clone()]), Some((25, Bound::Arithmetic)));
        assert_eq!(prediction("navi21", 64, vec![integers.clone()]), Some((33, Bound::Arithmetic)));
        assert_eq!(prediction("navi31", 64, vec![integers.clone()]), Some((20, Bound::Arithmetic)));
        assert_eq!(prediction("dg2", 8, vec![integers]), Some((50, Bound::Arithmetic)));
        // A scalar takes a whole instruction of the lanes for integers there.
        let scalars = turn(&[(Kind::Fma, 50), (Kind::Scalar, 100)]);
        assert_eq!(prediction("dg2", 8, vec![scalars]), Some((50, Bound::Arithmetic)));
    }

    #[test]
    fn a_loop_counts_by_its_turns_however_far_it_is_unrolled() {
        let once = turn(&[(Kind::Fma, 64), (Kind::Vector, 64)]);
        let four = turn(&[(Kind::Fma, 256), (Kind::Vector, 256)]);
        let other = turn(&[(Kind::Fma, 32)]);
        let both = prediction("navi21", 64, vec![once, other.clone()]);
        assert_eq!(both, Some((67, Bound::Arithmetic)));
        assert_eq!(prediction("navi21", 64, vec![four, other]), both);
    }

    #[test]
    fn a_loop_around_others_turns_once_per_tile() {
        let around =
            Loop { innermost: false, around_all: true, ..turn(&[(Kind::Fma, 1024), (Kind::Vector, 1024)]) };
        let inside = [turn(&[(Kind::Fma, 64)]), turn(&[(Kind::Fma, 32)])];
        let loops = [&[around][..], &inside].concat();
        let label = "attention d64 dv64 f32->f32 tile 64x32 chunk 8 v 16 block 64x64".to_string();
        let asked = Asked { label, lanes: 128, workgroup_bytes: 0 };
        let row = Statistics::new(named("navi21").unwrap(), asked, 64, Vec::new(), String::new());
        assert_eq!(fma_per_tile(&row), Some(2048.0));
        // Half of the fma in the loop around, a quarter in each of those inside.
        let times = |hot, around| {
            let all = turns(hot, around, Some(2048.0), Tiles::Full);
            all.into_iter().map(|(_, times)| times).collect::<Vec<_>>()
        };
        assert_eq!(times(&loops, None), [8.0, 16.0, 1.0]);
        // The same where the loop over tiles has no fma of its own, and is no hot loop.
        let over_tiles = turn(&[(Kind::Vector, 2048)]);
        assert_eq!(times(&inside, Some(&over_tiles)), [16.0, 32.0, 1.0]);
        let unrolled = Statistics { loops: inside.to_vec(), around: Some(over_tiles.clone()), ..row.clone() };
        assert_eq!(predict(&unrolled, Tiles::Full).unwrap().percent.round(), 50.0);
        // Half of what is around stands behind branches.
        let shorter = Loop { shortest: turn(&[(Kind::Vector, 1024)]).own, ..over_tiles.clone() };
        let unrolled = Statistics { around: Some(shorter), ..unrolled };
        let [full, masked] =
            [Tiles::Full, Tiles::Masked].map(|tiles| predict(&unrolled, tiles).unwrap().percent.round());
        assert_eq!([full, masked], [67.0, 50.0]);
        let found = predict(&Statistics { loops, ..row }, Tiles::Full).unwrap();
        assert_eq!((found.percent.round(), found.bound), (67.0, Bound::Arithmetic));
    }

    #[test]
    fn nothing_is_said_of_matrices_and_of_no_loop() {
        assert_eq!(prediction("navi31", 64, vec![turn(&[(Kind::Fma, 64), (Kind::Matrix, 1)])]), None);
        assert_eq!(prediction("navi31", 64, Vec::new()), None);
    }
}

//! What is predicted for GPUs, from their compilers and published figures (`docs/SPEED.md`), and what a run says of it.

use crate::record::{Adapter, Case, CeilingKind, Status};
use anyhow::{Context, Result};
use serde::Deserialize;

/// A kind of GPU whose compiler was asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// Short: `ampere`.
    pub name: String,
    /// Whose it is.
    pub gpu: String,
    /// What is predicted.
    pub kernels: Vec<Predicted>,
}

/// The predicted speed of a shader.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicted {
    /// In words.
    pub kernel: String,
    /// Its name: what a case of a record says it ran.
    pub shader: String,
    /// Share of the peak of f32 fma, in percent.
    pub percent: f64,
    /// What binds.
    pub bound: String,
    /// Anything but 0: the compiler spills, which should make it slower than that.
    pub spills: u64,
}

/// Why a family stands for an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// The adapter is of the family.
    Same,
    /// No family is the adapter's; this is the vendor's nearest.
    Nearest,
    /// The user said so.
    Told,
}

/// What a run says of a prediction.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Within a fifth of it.
    Confirmed,
    /// By more than that slower, or faster.
    Refuted,
    /// No such shader was timed: why.
    NotRun(String),
}

/// A prediction beside its measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<'a> {
    /// The prediction.
    pub predicted: &'a Predicted,
    /// The longest timed case that ran the shader.
    pub case: Option<&'a Case>,
    /// Executed operations per second.
    pub flop_s: Option<f64>,
    /// Of the peak, in percent.
    pub percent: Option<f64>,
    /// What that makes of the prediction.
    pub verdict: Verdict,
}

impl Outcome<'_> {
    /// Measured over predicted share.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.percent? / self.predicted.percent)
    }
}

/// Ratios of measured and predicted shares that confirm: a fifth less, and as much more.
pub const CONFIRMS: std::ops::RangeInclusive<f64> = 0.8..=1.25;

/// All families.
///
/// # Errors
/// The file that was compiled in is no list of them, which a test excludes.
pub fn families() -> Result<Vec<Family>> {
    serde_json::from_str(include_str!("predictions.json")).context("predictions.json")
}

/// PCI ids of vendors, and words of adapters' names that tell a family. The first that fits is taken; a family without words is its vendor's nearest.
const NAMES: [(u32, &[&str], &str); 12] = [
    (NVIDIA, &["RTX 30", "RTX A", " A10 ", " A40", "A16"], "ampere"),
    (NVIDIA, &[], "ampere"),
    (AMD, &["RX 90", "GFX12", "NAVI4"], "gfx1201"),
    (AMD, &["RX 7", "780M", "760M", "890M", "GFX11", "NAVI3"], "navi31"),
    (AMD, &["RX 6", "680M", "660M", "GFX103", "NAVI2", "VANGOGH"], "navi21"),
    (AMD, &["VEGA", "GFX9", "RADEON VII"], "vega10"),
    (AMD, &[], "navi31"),
    (INTEL, &["(BMG", "B580", "B570", "B50", "B60", "LNL", "XE2"], "bmg"),
    (INTEL, &["(DG2", "A770", "A750", "A580", "A380", "A310"], "dg2"),
    (INTEL, &[], "dg2"),
    (APPLE, &[], "m1"),
    (QUALCOMM, &[], "adreno740"),
];

const NVIDIA: u32 = 0x10de;
const AMD: u32 = 0x1002;
const INTEL: u32 = 0x8086;
const APPLE: u32 = 0x106b;
const QUALCOMM: u32 = 0x5143;

/// The family of an adapter by its vendor and name, and why; none where nothing is predicted for the vendor.
pub fn family_of(adapter: &Adapter) -> Option<(&'static str, Likeness)> {
    let name = format!("{} ", adapter.name.to_uppercase());
    // Backends that tell no vendor tell a name.
    let vendor = match adapter.vendor {
        0 => *[
            ("NVIDIA", NVIDIA),
            ("AMD", AMD),
            ("RADEON", AMD),
            ("INTEL", INTEL),
            ("APPLE", APPLE),
            ("ADRENO", QUALCOMM),
        ]
        .iter()
        .find_map(|(word, vendor)| name.contains(word).then_some(vendor))?,
        vendor => vendor,
    };
    let exact = |word: &&str| name.contains(word);
    let (_, words, family) =
        NAMES.iter().find(|(of, words, _)| *of == vendor && (words.is_empty() || words.iter().any(exact)))?;
    let same = !words.is_empty()
        || vendor == APPLE && name.starts_with("APPLE M1 ")
        || vendor == QUALCOMM && name.contains("740");
    Some((family, if same { Likeness::Same } else { Likeness::Nearest }))
}

/// The rate of the plain kernel of fma, measured in the run.
pub fn measured_peak(adapter: &Adapter) -> Option<f64> {
    adapter.ceilings.iter().find(|ceiling| ceiling.kind == CeilingKind::FmaF32)?.value()
}

/// Each prediction of a family beside what the adapter's cases say of it, with this peak in FLOP/s.
pub fn outcomes<'a>(family: &'a Family, adapter: &'a Adapter, peak: Option<f64>) -> Vec<Outcome<'a>> {
    family.kernels.iter().map(|predicted| outcome(predicted, adapter, peak)).collect()
}

fn outcome<'a>(predicted: &'a Predicted, adapter: &'a Adapter, peak: Option<f64>) -> Outcome<'a> {
    let ran = |case: &&Case| case.shaders.contains(&predicted.shader);
    let flop = |case: &Case| case.cost.as_ref().map_or(0.0, |cost| cost.executed_flop);
    let good = |case: &&Case| case.timed().is_some() && case.status != Status::Failed;
    let timed = adapter.cases.iter().filter(ran).filter(good);
    let case = timed.max_by(|a, b| flop(a).total_cmp(&flop(b)));
    let flop_s = case.and_then(|case| Some(case.rates.as_ref()?.executed_flop_s));
    let percent = flop_s.zip(peak).map(|(rate, peak)| 100.0 * rate / peak);
    let verdict = match percent {
        Some(percent) if CONFIRMS.contains(&(percent / predicted.percent)) => Verdict::Confirmed,
        Some(_) => Verdict::Refuted,
        None if case.is_some() => Verdict::NotRun("the peak was not measured; --peak tells one".into()),
        None => {
            let untimed = adapter.cases.iter().find(ran).map(Case::notes).filter(|notes| !notes.is_empty());
            Verdict::NotRun(untimed.unwrap_or_else(|| "no case ran this shader".into()))
        }
    };
    Outcome { predicted, case, flop_s, percent, verdict }
}

/// The timed cases that ran a shader of which the family predicts nothing.
pub fn unpredicted<'a>(family: Option<&Family>, adapter: &'a Adapter) -> Vec<&'a Case> {
    let known = |shader: &String| {
        family.is_some_and(|family| family.kernels.iter().any(|predicted| predicted.shader == *shader))
    };
    let cases = adapter.cases.iter().filter(|case| case.timed().is_some() && !case.shaders.is_empty());
    cases.filter(|case| !case.shaders.iter().any(known)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn adapter(vendor: u32, name: &str) -> Adapter {
        let record = Record::parse(include_str!("../tests/data/bench.json")).expect("the sample is a record");
        let adapter = record.adapters.into_iter().next().expect("it has one");
        Adapter { vendor, name: name.into(), ..adapter }
    }

    #[test]
    fn families_are_found_by_vendor_and_name() {
        use Likeness::{Nearest, Same};
        for (vendor, name, family) in [
            (NVIDIA, "NVIDIA GeForce RTX 3080", Some(("ampere", Same))),
            (NVIDIA, "NVIDIA H200", Some(("ampere", Nearest))),
            (NVIDIA, "NVIDIA GeForce RTX 4090", Some(("ampere", Nearest))),
            (AMD, "AMD Radeon RX 7900 XTX (RADV NAVI31)", Some(("navi31", Same))),
            (AMD, "AMD Radeon RX 6800", Some(("navi21", Same))),
            (AMD, "AMD Radeon RX 9070 XT (RADV GFX1201)", Some(("gfx1201", Same))),
            (AMD, "AMD Radeon RX Vega (RADV VEGA10)", Some(("vega10", Same))),
            (AMD, "AMD Custom", Some(("navi31", Nearest))),
            (INTEL, "Intel(R) Arc(tm) A770 Graphics (DG2)", Some(("dg2", Same))),
            (INTEL, "Intel(R) Arc(tm) B580 Graphics (BMG G21)", Some(("bmg", Same))),
            (INTEL, "Intel(R) UHD Graphics 770", Some(("dg2", Nearest))),
            (0, "Apple M1", Some(("m1", Same))),
            (0, "Apple M4 Max", Some(("m1", Nearest))),
            (0x10005, "llvmpipe (LLVM 19.1.7, 256 bits)", None),
            (0, "Software", None),
        ] {
            assert_eq!(family_of(&adapter(vendor, name)), family, "{name}");
        }
        let families = families().unwrap();
        for (_, _, family) in NAMES {
            let family = families.iter().find(|it| it.name == family).unwrap_or_else(|| panic!("{family}"));
            assert!(family.kernels.iter().all(|it| (1.0..=100.0).contains(&it.percent)), "{family:?}");
            assert_eq!(family.kernels.len(), 9);
        }
    }

    /// The sample's first timed case with a shader and a rate of half the peak.
    fn ran(shader: &str, share: f64) -> Adapter {
        let mut adapter = adapter(NVIDIA, "NVIDIA GeForce RTX 3080");
        let peak = measured_peak(&adapter).expect("the sample has it");
        let case = adapter.cases.iter_mut().find(|case| case.timed().is_some()).expect("the sample has one");
        case.shaders = vec!["records".into(), shader.into()];
        case.rates.as_mut().expect("it is timed").executed_flop_s = share * peak;
        adapter
    }

    #[test]
    fn shares_confirm_and_refute() {
        let families = families().unwrap();
        let family = families.iter().find(|family| family.name == "ampere").unwrap();
        let first = &family.kernels[0];
        for (ratio, verdict) in [
            (1.0, Verdict::Confirmed),
            (0.81, Verdict::Confirmed),
            (1.24, Verdict::Confirmed),
            (0.79, Verdict::Refuted),
            (1.26, Verdict::Refuted),
        ] {
            let adapter = ran(&first.shader, ratio * first.percent / 100.0);
            let outcomes = outcomes(family, &adapter, measured_peak(&adapter));
            assert_eq!(outcomes[0].verdict, verdict, "{ratio}");
            assert!((outcomes[0].ratio().unwrap() - ratio).abs() < 1e-9);
            // A peak of the user's own counts instead.
            let half = super::outcomes(family, &adapter, measured_peak(&adapter).map(|peak| 2.0 * peak));
            assert!((half[0].ratio().unwrap() - ratio / 2.0).abs() < 1e-9);
            let others = outcomes[1..].iter();
            assert!(
                others
                    .clone()
                    .all(|it| matches!(&it.verdict, Verdict::NotRun(why) if why.contains("no case")))
            );
        }
    }

    #[test]
    fn what_was_not_timed_says_why_and_what_was_not_predicted_is_listed() {
        let families = families().unwrap();
        let family = families.iter().find(|family| family.name == "ampere").unwrap();
        let mut adapter = ran(&family.kernels[0].shader, 0.5);
        let case = adapter.cases.iter_mut().find(|case| !case.shaders.is_empty()).unwrap();
        case.because(Status::Failed, "out of its bound".into());
        let peak = measured_peak(&adapter);
        let verdict = &outcomes(family, &adapter, peak)[0].verdict;
        assert!(matches!(verdict, Verdict::NotRun(why) if why.contains("out of its bound")), "{verdict:?}");
        assert!(unpredicted(Some(family), &adapter).is_empty());
        let adapter = ran("attention of another tile", 0.5);
        assert_eq!(unpredicted(Some(family), &adapter).len(), 1);
        let without = Adapter { ceilings: vec![], ..ran(&family.kernels[0].shader, 0.5) };
        let verdict = &outcomes(family, &without, measured_peak(&without))[0].verdict;
        assert!(matches!(verdict, Verdict::NotRun(why) if why.contains("--peak")), "{verdict:?}");
    }
}

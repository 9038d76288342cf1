//! What a measured time means against the ceilings.

use crate::record::{Ceiling, CeilingKind, Cost, Rates};
use wgpu_attention::KernelPath;

/// The rates of a call that takes `time_s`.
pub(super) fn rates(cost: &Cost, path: &str, time_s: f64, ceilings: &[Ceiling]) -> Rates {
    let value = |kind| ceilings.iter().find(|ceiling| ceiling.kind == kind).and_then(Ceiling::value);
    let scalar = path == KernelPath::Scalar.to_string();
    let arithmetic = if scalar { CeilingKind::FmaF32 } else { CeilingKind::MatrixF16 };
    let peak = value(arithmetic);
    let moving = [CeilingKind::Copy, CeilingKind::Read]
        .into_iter()
        .filter_map(|kind| Some((kind, value(kind)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let roofline = peak.zip(moving).map(|(peak, (kind, bandwidth))| {
        let (computing_s, moving_s) = (cost.useful_flop / peak, cost.bytes / bandwidth);
        if computing_s >= moving_s { (computing_s, arithmetic) } else { (moving_s, kind) }
    });
    Rates {
        time_s,
        useful_flop_s: cost.useful_flop / time_s,
        executed_flop_s: cost.executed_flop / time_s,
        bytes_s: cost.bytes / time_s,
        roofline_percent: roofline.map(|(least_s, _)| 100.0 * least_s / time_s),
        bound_by: roofline.map(|(_, kind)| kind),
        peak_percent: peak.map(|peak| 100.0 * cost.executed_flop / time_s / peak),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    /// The sample's first adapter: 40 GFLOP/s, 9 GB/s copied, 8 GB/s read.
    fn ceilings() -> Vec<Ceiling> {
        Record::parse(include_str!("../tests/data/bench.json")).unwrap().adapters[0].ceilings.clone()
    }

    fn cost(flop: f64, bytes: f64) -> Cost {
        Cost {
            useful_flop: flop,
            executed_flop: 2.0 * flop,
            bytes,
            memory_bytes: 0,
            mask_bytes: 0,
            scratch_bytes: 0,
            kept_pairs: None,
            visited_pairs: None,
            block_waste: None,
            dispatches: 1,
        }
    }

    #[test]
    fn the_nearer_ceiling_binds_and_nothing_is_clamped() {
        let ceilings = ceilings();
        let computing = rates(&cost(4.016e8, 1.0), "scalar", 0.02, &ceilings);
        assert_eq!(computing.bound_by, Some(CeilingKind::FmaF32));
        assert!((computing.roofline_percent.unwrap() - 50.0).abs() < 1e-9);
        assert!((computing.peak_percent.unwrap() - 100.0).abs() < 1e-9);
        let moving = rates(&cost(1.0, 9.009e7), "scalar", 0.005, &ceilings);
        assert_eq!(moving.bound_by, Some(CeilingKind::Copy));
        assert!((moving.roofline_percent.unwrap() - 200.0).abs() < 1e-9, "{moving:?}");
    }

    #[test]
    fn without_the_ceiling_there_is_no_percentage() {
        let rates = rates(&cost(1e6, 1.0), "cooperative", 1.0, &ceilings());
        assert_eq!((rates.roofline_percent, rates.peak_percent, rates.bound_by), (None, None, None));
        assert_eq!(rates.useful_flop_s, 1e6);
    }
}

//! CSV: one row per case, with a header.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use wgpu_attention_bench::record::{Adapter, Case, CeilingKind, Direction, Record, Status};

/// A case with what it was measured on. What it has none of is empty. Units as in the record.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    version: String,
    date: String,
    suite: String,
    adapter: String,
    backend: String,
    driver: String,
    drifted: bool,
    case: String,
    known_as: Option<String>,
    kernel: String,
    pattern: Option<String>,
    score: Option<String>,
    score_text: Option<String>,
    path: Option<String>,
    dtype: String,
    length: usize,
    direction: Direction,
    status: Status,
    why: Option<String>,
    verified_rows: Option<usize>,
    error_of_bound: Option<f64>,
    clock: Option<String>,
    samples: Option<usize>,
    hot_median_s: Option<f64>,
    hot_mad_s: Option<f64>,
    hot_min_s: Option<f64>,
    hot_p95_s: Option<f64>,
    cold_median_s: Option<f64>,
    clock_difference: Option<f64>,
    clocks_disagree: Option<bool>,
    useful_flop: Option<f64>,
    executed_flop: Option<f64>,
    bytes: Option<f64>,
    memory_bytes: Option<u64>,
    mask_bytes: Option<u64>,
    block_waste: Option<f64>,
    useful_flop_s: Option<f64>,
    executed_flop_s: Option<f64>,
    bytes_s: Option<f64>,
    roofline_percent: Option<f64>,
    bound_by: Option<CeilingKind>,
    peak_percent: Option<f64>,
}

impl Row {
    fn new(record: &Record, adapter: &Adapter, case: &Case) -> Self {
        let (hot, cost, rates) = (case.hot.as_ref(), case.cost.as_ref(), case.rates.as_ref());
        let clock = hot.map(|hot| hot.clock());
        let summary = clock.map(|clock| &clock.summary);
        Self {
            version: record.version.clone(),
            date: record.date.clone(),
            suite: record.suite.clone(),
            adapter: adapter.name.clone(),
            backend: adapter.backend.clone(),
            driver: adapter.driver.clone(),
            drifted: adapter.drifted,
            case: case.name.clone(),
            known_as: case.known_as.clone(),
            kernel: case.kernel.name().into(),
            pattern: case.pattern.clone(),
            score: case.score.clone(),
            score_text: case.score_text.clone(),
            path: case.path.clone(),
            dtype: case.dtype.clone(),
            length: case.shape.length(),
            direction: case.direction,
            status: case.status,
            why: case.why.clone(),
            verified_rows: case.verification.as_ref().map(|it| it.rows),
            error_of_bound: case.verification.as_ref().and_then(|it| it.worst_ratio),
            clock: hot.map(|hot| if hot.timestamps.is_some() { "timestamps" } else { "wall" }.into()),
            samples: clock.map(|clock| clock.samples_s.len()),
            hot_median_s: summary.map(|it| it.median_s),
            hot_mad_s: summary.map(|it| it.mad_s),
            hot_min_s: summary.map(|it| it.min_s),
            hot_p95_s: summary.map(|it| it.p95_s),
            cold_median_s: case.cold.as_ref().map(|cold| cold.clock().summary.median_s),
            clock_difference: hot.and_then(|hot| hot.clock_difference),
            clocks_disagree: hot.map(|hot| hot.clocks_disagree),
            useful_flop: cost.map(|it| it.useful_flop),
            executed_flop: cost.map(|it| it.executed_flop),
            bytes: cost.map(|it| it.bytes),
            memory_bytes: cost.map(|it| it.memory_bytes),
            mask_bytes: cost.map(|it| it.mask_bytes),
            block_waste: cost.and_then(|it| it.block_waste),
            useful_flop_s: rates.map(|it| it.useful_flop_s),
            executed_flop_s: rates.map(|it| it.executed_flop_s),
            bytes_s: rates.map(|it| it.bytes_s),
            roofline_percent: rates.and_then(|it| it.roofline_percent),
            bound_by: rates.and_then(|it| it.bound_by),
            peak_percent: rates.and_then(|it| it.peak_percent),
        }
    }
}

fn rows(records: &[Record]) -> Vec<Row> {
    let adapters =
        records.iter().flat_map(|record| record.adapters.iter().map(move |adapter| (record, adapter)));
    adapters
        .flat_map(|(record, adapter)| adapter.cases.iter().map(move |case| Row::new(record, adapter, case)))
        .collect()
}

/// The text of the file.
pub(super) fn csv(records: &[Record]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(vec![]);
    rows(records).iter().try_for_each(|row| writer.serialize(row))?;
    Ok(String::from_utf8(writer.into_inner()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::sample;

    #[test]
    fn what_is_written_is_read_again() -> Result<()> {
        let mut record = sample();
        record.adapters[0].name = "a \"quoted\", name\nof two lines; =1+1".into();
        let case = &mut record.adapters[0].cases[0];
        (case.score, case.score_text) = (Some("t5".into()), Some("buckets:count=32,max_distance=128".into()));
        let records = [record, sample()];
        let written = rows(&records);
        assert_eq!(written.len(), 2 * 35, "every case of every adapter of every record");
        let text = csv(&records)?;
        let read: Vec<Row> =
            csv::Reader::from_reader(text.as_bytes()).deserialize().collect::<Result<_, _>>()?;
        assert_eq!(read, written);
        assert!(text.contains(",full,t5,\"buckets:count=32,max_distance=128\","), "{text}");
        Ok(())
    }
}

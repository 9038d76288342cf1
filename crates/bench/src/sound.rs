//! What a record may not say: times that are none.

use crate::record::{Case, Clock, Record, Status, Timing};
use crate::stats::summary;
use anyhow::{Context, Result, ensure};

impl Record {
    /// Refuses times of 0 or less, and times of a case that failed: whoever compares them compares nothing.
    pub(crate) fn check(&self) -> Result<()> {
        for adapter in &self.adapters {
            for case in &adapter.cases {
                case.check().with_context(|| format!("case `{}` on {}", case.name, adapter.title()))?;
            }
        }
        Ok(())
    }
}

impl Case {
    fn check(&self) -> Result<()> {
        let timed = self.hot.is_some() || self.rates.is_some();
        let failed = self.status == Status::Failed || self.verification.as_ref().is_some_and(|it| !it.pass);
        ensure!(!(failed && timed), "need no times, as it failed its verification, got some");
        if let Some(rates) = &self.rates {
            ensure!(rates.time_s > 0.0, "need a time above 0 s, got {}", rates.time_s);
        }
        self.hot.as_ref().map_or(Ok(()), Timing::check)
    }
}

impl Timing {
    /// With cold caches the wall clock's time is a difference that noise may drown; with hot ones it is not.
    fn check(&self) -> Result<()> {
        [Some(&self.wall), self.timestamps.as_ref()].into_iter().flatten().try_for_each(Clock::check)
    }
}

impl Clock {
    /// Single samples may be off; their median may not.
    fn check(&self) -> Result<()> {
        let median = summary(&self.samples_s).context("need samples, got none")?.median_s;
        let least = median.min(self.summary.median_s);
        ensure!(least > 0.0, "need a median time above 0 s, got {least}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        Record::parse(include_str!("../tests/data/bench.json")).unwrap()
    }

    fn refusal(change: impl FnOnce(&mut Case)) -> String {
        let mut record = sample();
        let case = record.adapters[0].cases.iter_mut().find(|case| case.status == Status::Measured).unwrap();
        change(case);
        let name = case.name.clone();
        let error = format!("{:#}", Record::parse(&record.to_json().unwrap()).unwrap_err());
        assert!(error.contains(&format!("case `{name}` on Software Example")), "{error}");
        error
    }

    #[test]
    fn times_that_are_none_are_refused() {
        let median = "need a median time above 0 s, got ";
        for time in [0.0, -1e-3] {
            let samples = refusal(|case| case.hot.as_mut().unwrap().wall.samples_s.fill(time));
            assert!(samples.contains(&format!("{median}{time}")), "{samples}");
            let said = refusal(|case| case.hot.as_mut().unwrap().wall.summary.median_s = time);
            assert!(said.contains(&format!("{median}{time}")), "{said}");
            let rate = refusal(|case| case.rates.as_mut().unwrap().time_s = time);
            assert!(rate.contains(&format!("need a time above 0 s, got {time}")), "{rate}");
        }
        let none = refusal(|case| case.hot.as_mut().unwrap().wall.samples_s.clear());
        assert!(none.contains("need samples, got none"), "{none}");
    }

    #[test]
    fn a_case_that_failed_has_no_times() {
        let failed = refusal(|case| case.status = Status::Failed);
        assert!(failed.contains("need no times, as it failed its verification, got some"), "{failed}");
        let wrong = refusal(|case| case.verification.as_mut().unwrap().pass = false);
        assert!(wrong.contains("need no times"), "{wrong}");
    }

    #[test]
    fn one_bad_sample_does_not_spoil_a_median() {
        let mut record = sample();
        for case in &mut record.adapters[0].cases {
            case.hot.iter_mut().for_each(|hot| hot.wall.samples_s[0] = -1e-6);
        }
        assert!(Record::parse(&record.to_json().unwrap()).is_ok());
    }
}

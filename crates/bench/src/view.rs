//! A case and an adapter in words.

use crate::record::{Adapter, Case, CeilingKind, Cost, Rates, Record, Status, Timing};

/// What there is to say of a case that was verified and timed.
#[derive(Debug, Clone, Copy)]
pub struct Timed<'a> {
    /// Its times with hot caches.
    pub hot: &'a Timing,
    /// What they mean.
    pub rates: &'a Rates,
    /// What a call costs.
    pub cost: &'a Cost,
}

impl Case {
    /// None where it was never timed.
    pub fn timed(&self) -> Option<Timed<'_>> {
        Some(Timed { hot: self.hot.as_ref()?, rates: self.rates.as_ref()?, cost: self.cost.as_ref()? })
    }

    /// Kernel, and pattern and score where it has them: what cases of other sizes share.
    pub fn family(&self) -> String {
        let pattern = self.pattern.iter().map(|pattern| format!("/{pattern}"));
        let score = self.score.iter().map(|score| format!("+{score}"));
        [self.kernel.name().into()].into_iter().chain(pattern).chain(score).collect()
    }

    /// What is to be known of its figures, or why there are none.
    pub fn notes(&self) -> String {
        let why = self.why.as_deref().unwrap_or("no reason given");
        let mut notes = match self.status {
            Status::Measured => vec![],
            Status::Unconverged => vec!["unconverged".into()],
            Status::Failed => vec![format!("FAILED: {why}")],
            Status::CannotRun => vec![format!("cannot run: {why}")],
            Status::NotRun => vec![format!("not run: {why}")],
            Status::Interrupted => vec!["interrupted".into()],
        };
        if self.hot.as_ref().is_some_and(|hot| hot.clocks_disagree) {
            notes.push("clocks disagree".into());
        }
        notes.join(", ")
    }
}

impl Adapter {
    /// Name and interface.
    pub fn title(&self) -> String {
        format!("{} ({})", self.name, self.backend)
    }

    /// How many cases ended so.
    pub fn count(&self, status: Status) -> usize {
        self.cases.iter().filter(|case| case.status == status).count()
    }

    /// A ceiling, where it was measured.
    pub fn ceiling(&self, kind: CeilingKind) -> Option<f64> {
        self.ceilings.iter().find(|ceiling| ceiling.kind == kind)?.value()
    }

    /// `26 measured, 4 unconverged, 1 failed`: of what there is.
    pub fn tally(&self) -> String {
        let words = [
            (Status::Measured, "measured"),
            (Status::Unconverged, "unconverged"),
            (Status::Failed, "FAILED"),
            (Status::CannotRun, "cannot run"),
            (Status::NotRun, "not run"),
            (Status::Interrupted, "interrupted"),
        ];
        let counts = words.map(|(status, word)| (self.count(status), word));
        let counts: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        counts.join(", ")
    }

    /// What forbids to take its figures as they are; empty where nothing does.
    pub fn warnings(&self, record: &Record) -> Vec<String> {
        let mut warnings = vec![];
        if !record.complete {
            warnings.push("the run was not completed".into());
        }
        if self.drifted {
            let percent = 100.0 * record.rules.drift;
            warnings.push(format!(
                "drift: a ceiling changed by more than {percent:.0} % during the run, so its figures are not comparable"
            ));
        }
        warnings.extend(
            self.error
                .as_ref()
                .map(|error| format!("the adapter could not be used, or not to the end: {error}")),
        );
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_words() {
        let record = Record::parse(include_str!("../tests/data/bench.json")).expect("the sample is a record");
        let adapter = &record.adapters[0];
        let notes =
            |status| adapter.cases.iter().find(|case| case.status == status).expect("every status").notes();
        assert!(notes(Status::Failed).starts_with("FAILED: out of its bound"));
        assert!(notes(Status::CannotRun).starts_with("cannot run: q: need"));
        assert_eq!(notes(Status::Unconverged), "unconverged");
        assert_eq!(notes(Status::Interrupted), "interrupted");
        assert_eq!(adapter.tally(), "13 measured, 1 unconverged, 1 FAILED, 1 cannot run, 1 interrupted");
        assert!(record.adapters[1].warnings(&record).iter().any(|warning| warning.starts_with("drift")));
        assert_eq!(record.adapters[2].warnings(&record).len(), 2, "incomplete, and not usable");
    }
}

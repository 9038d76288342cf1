//! A case in words.

use crate::bench::record::{Adapter, Case, CeilingKind, Cost, Rates, Record, Status, Timing};

/// What there is to say of a case that was verified and timed.
#[derive(Clone, Copy)]
pub(crate) struct Timed<'a> {
    pub(crate) hot: &'a Timing,
    pub(crate) rates: &'a Rates,
    pub(crate) cost: &'a Cost,
}

impl Case {
    /// None where it was never timed.
    pub(crate) fn timed(&self) -> Option<Timed<'_>> {
        Some(Timed { hot: self.hot.as_ref()?, rates: self.rates.as_ref()?, cost: self.cost.as_ref()? })
    }

    /// Kernel, and pattern where it has one: what cases of other sizes share.
    pub(crate) fn family(&self) -> String {
        match &self.pattern {
            Some(pattern) => format!("{}/{pattern}", self.kernel.name()),
            None => self.kernel.name().into(),
        }
    }

    /// What is to be known of its figures, or why there are none.
    pub(crate) fn notes(&self) -> String {
        let why = self.why.as_deref().unwrap_or("no reason given");
        let mut notes = match self.status {
            Status::Measured => vec![],
            Status::Unconverged => vec!["unconverged".into()],
            Status::Failed => vec![format!("FAILED: {why}")],
            Status::CannotRun => vec![format!("cannot run: {why}")],
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
    pub(crate) fn title(&self) -> String {
        format!("{} ({})", self.name, self.backend)
    }

    pub(crate) fn count(&self, status: Status) -> usize {
        self.cases.iter().filter(|case| case.status == status).count()
    }

    pub(crate) fn ceiling(&self, kind: CeilingKind) -> Option<f64> {
        self.ceilings.iter().find(|ceiling| ceiling.kind == kind)?.value()
    }

    /// `26 measured, 4 unconverged, 1 failed`: of what there is.
    pub(crate) fn tally(&self) -> String {
        let words = [
            (Status::Measured, "measured"),
            (Status::Unconverged, "unconverged"),
            (Status::Failed, "FAILED"),
            (Status::CannotRun, "cannot run"),
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
    pub(crate) fn warnings(&self, record: &Record) -> Vec<String> {
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
    use crate::report::samples::sample;

    #[test]
    fn every_status_has_its_words() {
        let record = sample();
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

    #[test]
    fn lengths() {
        assert_eq!([512, 1000, 2048, 65_536, 1 << 20].map(short_len), ["512", "1000", "2k", "64k", "1M"]);
    }
}

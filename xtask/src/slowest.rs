//! Which programs, steps and tests take long.
//!
//! Programs and steps go by their processor time, where it is known: how long one took tells more of what ran beside it.

use std::time::{Duration, Instant};

use crate::steps::{known_seconds, seconds};

/// How many are listed.
const LISTED: usize = 25;

/// How long the tests took.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Times {
    /// Each test program and step, with all that it did.
    programs: Vec<Program>,
    /// Each test, by its program and name.
    tests: Vec<(String, Duration)>,
    /// The doc tests at work, and since when.
    docs: Option<(String, Instant)>,
}

/// What a program took.
#[derive(Debug, PartialEq)]
struct Program {
    name: String,
    time: Duration,
    processor: Option<Duration>,
}

impl Program {
    /// What it is listed by.
    fn cost(&self) -> Duration {
        self.processor.unwrap_or(self.time)
    }

    fn line(&self) -> String {
        format!("  {:>9}  {:>9}  {}\n", known_seconds(self.processor), seconds(self.time), self.name)
    }
}

impl Times {
    /// Takes in a line of cargo's, which runs doc tests itself.
    pub(crate) fn hear_cargo(&mut self, line: &str, now: Instant) {
        if let Some(package) = doc_tests(line) {
            self.end_cargo(now);
            self.docs = Some((format!("doc tests of {package}"), now));
        }
    }

    /// Cargo is done.
    pub(crate) fn end_cargo(&mut self, now: Instant) {
        if let Some((name, began)) = self.docs.take() {
            self.end(&name, now - began, None);
        }
    }

    /// Takes in a line of a test program's.
    pub(crate) fn hear(&mut self, program: &str, line: &str) {
        if let Some((name, time)) = test_time(line) {
            self.tests.push((format!("{program}: {name}"), time));
        }
    }

    /// A test program or a step is done.
    pub(crate) fn end(&mut self, program: &str, time: Duration, processor: Option<Duration>) {
        self.programs.push(Program { name: program.into(), time, processor });
    }

    /// The slowest programs, steps and tests.
    pub(crate) fn report(&self) -> String {
        let mut programs: Vec<_> = self.programs.iter().collect();
        programs.sort_by_key(|program| std::cmp::Reverse(program.cost()));
        let programs: String = programs.into_iter().take(LISTED).map(Program::line).collect();
        let mut tests: Vec<_> = self.tests.iter().collect();
        tests.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let line = |(name, time): &(String, Duration)| format!("  {:>9}  {name}\n", seconds(*time));
        let tests: String = tests.into_iter().take(LISTED).map(line).collect();
        format!(
            "slowest programs and steps (processor time, time)\n{programs}\nslowest tests (time)\n{tests}"
        )
    }
}

/// The package whose doc tests cargo is about to run; the line may be coloured.
fn doc_tests(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("Doc-tests")?;
    let nothing = before.chars().all(|c| !c.is_alphabetic() || c == 'm');
    nothing.then(|| rest.split_whitespace().last()).flatten()
}

/// The name and the time in a line like `test a::b ... ok <1.234s>`.
fn test_time(line: &str) -> Option<(&str, Duration)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds: f64 = rest.strip_suffix("s>")?.rsplit_once('<')?.1.parse().ok()?;
    Some((name, Duration::try_from_secs_f64(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doc_tests_are_recognised() {
        assert_eq!(doc_tests("   Doc-tests wgpu_attention"), Some("wgpu_attention"));
        assert_eq!(doc_tests("\x1b[1m\x1b[92m   Doc-tests\x1b[0m a"), Some("a"));
        assert_eq!(doc_tests("test Doc-tests::x ... ok"), None);
    }

    #[test]
    fn times_are_read() {
        assert_eq!(test_time("test a::b ... ok <1.500s>"), Some(("a::b", Duration::from_millis(1500))));
        assert_eq!(
            test_time("test c - should panic ... FAILED <0.001s>"),
            Some(("c - should panic", Duration::from_millis(1)))
        );
        assert_eq!(test_time("test src/lib.rs - (line 28) ... ok"), None);
        assert_eq!(test_time("test result: ok. 3 passed; finished in 1.00s"), None);
    }

    #[test]
    fn the_slowest_come_first_and_doc_tests_have_their_time() {
        let mut times = Times::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        times.hear_cargo("   Doc-tests a", at(10));
        times.hear_cargo("test src/lib.rs - (line 28) ... ok", at(12));
        times.hear_cargo("   Doc-tests b", at(17));
        times.end_cargo(at(18));
        times.hear("c", "test quick ... ok <0.100s>");
        times.hear("c", "test slow ... ok <6.000s>");
        times.end("c", Duration::from_secs(6), Some(Duration::from_secs(9)));
        times.end("d", Duration::from_secs(8), Some(Duration::from_secs(2)));
        let report = times.report();
        let place = |line: &str| report.find(line).unwrap_or_else(|| panic!("{line}: {report}"));
        // By processor time, where it is known.
        let order = [
            "      9.0 s      6.0 s  c\n",
            "        -      7.0 s  doc tests of a\n",
            "      2.0 s      8.0 s  d\n",
            "        -      1.0 s  doc tests of b\n",
        ];
        assert!(order.is_sorted_by_key(|line| place(line)), "{report}");
        assert!(place("      6.0 s  c: slow\n") < place("      0.1 s  c: quick\n"), "{report}");
    }
}

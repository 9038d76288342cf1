//! Which tests take long.

use std::time::{Duration, Instant};

/// How many are listed.
const LISTED: usize = 15;

/// How long the tests took.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Times {
    /// Each test program, with all that it did.
    programs: Vec<(String, Duration)>,
    /// Each test, by its program and name.
    tests: Vec<(String, Duration)>,
    /// The doc tests at work, and since when.
    docs: Option<(String, Instant)>,
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
            self.programs.push((name, now - began));
        }
    }

    /// Takes in a line of a test program's.
    pub(crate) fn hear(&mut self, program: &str, line: &str) {
        if let Some((name, time)) = test_time(line) {
            self.tests.push((format!("{program}: {name}"), time));
        }
    }

    /// A test program is done.
    pub(crate) fn end(&mut self, program: &str, time: Duration) {
        self.programs.push((program.into(), time));
    }

    /// The slowest programs and tests.
    pub(crate) fn report(&self) -> String {
        let list = |title: &str, all: &[(String, Duration)]| {
            let mut sorted: Vec<_> = all.iter().collect();
            sorted.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
            let lines = sorted.iter().take(LISTED);
            let line =
                |(name, time): &&(String, Duration)| format!("  {:>7.1} s  {name}\n", time.as_secs_f64());
            format!("{title}\n{}", lines.map(line).collect::<String>())
        };
        list("slowest test programs", &self.programs) + "\n" + &list("slowest tests", &self.tests)
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
        times.end("c", Duration::from_secs(6));
        let seconds = |n| Duration::from_secs(n);
        assert_eq!(
            times.programs,
            [
                ("doc tests of a".into(), seconds(7)),
                ("doc tests of b".into(), seconds(1)),
                ("c".into(), seconds(6))
            ]
        );
        let report = times.report();
        assert!(report.find("c: slow").unwrap() < report.find("c: quick").unwrap(), "{report}");
    }
}

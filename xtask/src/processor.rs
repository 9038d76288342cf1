//! Processor time: what a program and all that it started have computed, whatever else the machine was doing meanwhile.
//!
//! Linux tells it in `/proc`, and of a program that has ended until someone has waited for it. Where there is no `/proc`, it is not
//! known, and the reports have wall time alone.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// What `/proc` counts in, on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// How long to wait before looking again whether a child has ended.
const SOON: Duration = Duration::from_millis(2);

/// Waits for a child that has closed its outputs, and so is about to end. With the processor time of it and of what it has waited for
/// in turn.
pub(crate) fn wait(child: &mut Child) -> io::Result<(ExitStatus, Option<Duration>)> {
    let spent = loop {
        match Stat::of(&child.id().to_string()) {
            Some(stat) if stat.ended => break Some(stat.spent),
            Some(_) => std::thread::sleep(SOON),
            None => break None,
        }
    };
    Ok((child.wait()?, spent))
}

/// The processor time so far of this program and of what it has waited for.
pub(crate) fn so_far() -> Option<Duration> {
    Stat::of("self").map(|stat| stat.spent)
}

/// What Linux tells of a process.
#[derive(Debug, PartialEq)]
struct Stat {
    /// Whether it has ended, and nobody has waited for it yet.
    ended: bool,
    /// User and system time, with that of the children that it has waited for.
    spent: Duration,
}

impl Stat {
    fn of(process: &str) -> Option<Self> {
        Self::read(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// Reads a line of proc(5): behind the program's name, which stands in brackets and may hold anything, the state, and eleven places
    /// after it `utime`, `stime`, `cutime` and `cstime`.
    fn read(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u32>()).sum::<Result<u32, _>>();
        Some(Self { ended: fields[0] == "Z", spent: TICK * ticks.ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_programs_name() {
        let line = "7 (a) S 1) b) Z 1 7 7 0 -1 4194304 100 0 0 0 200 30 4 1 20 0 1 0 5000 0 0";
        let stat = Stat { ended: true, spent: Duration::from_millis(2350) };
        assert_eq!(Stat::read(line), Some(stat));
        assert_eq!(Stat::read(&line.replace(") Z", ") R")).map(|stat| stat.ended), Some(false));
        assert_eq!(Stat::read("7 (a) S 1 7"), None);
        assert_eq!(Stat::read("no line"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_child_of_a_child_computes_counts_and_sleep_does_not() {
        let spent = |script: &str| {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let (status, spent) = wait(&mut child).unwrap();
            assert_eq!(status.code(), Some(3));
            spent.unwrap()
        };
        let before = so_far().unwrap();
        let busy = spent("sh -c 'i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done'; exit 3");
        assert!(busy >= 3 * TICK, "{busy:?}");
        assert!(so_far().unwrap() >= before + busy, "the child has been waited for");
        let idle = spent("sleep 0.4; exit 3");
        assert!(idle < Duration::from_millis(200), "{idle:?}");
    }
}

//! Two programs at a time, those that take longest first; each line that they print is shown behind its program's name.
//!
//! Most of what a run of the tests starts keeps one processor busy: a test program ends with a test or two, a software adapter compiles
//! and runs one thing after the other, a browser and Node do, too.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write, pipe};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::{processor, steps};

/// How many run together. More would each wait for the memory of the others' devices and references.
pub(crate) const AT_ONCE: usize = 2;

/// A program to run beside others.
#[derive(Debug)]
pub(crate) struct Job {
    /// Shown before each of its lines.
    pub(crate) name: String,
    pub(crate) command: Command,
}

/// How a job ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) status: ExitStatus,
    pub(crate) time: Duration,
    /// Of it and of what it started, where it is known.
    pub(crate) processor: Option<Duration>,
}

/// Runs the jobs in this order, [`AT_ONCE`] together. `hear` is given each line, with the name of the job that printed it.
pub(crate) fn run_all(jobs: Vec<Job>, hear: impl Fn(&str, &str) + Sync) -> Result<Vec<Ended>> {
    let many = jobs.len();
    let waiting = Mutex::new(jobs.into_iter().enumerate().collect::<VecDeque<_>>());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || -> Result<Vec<Ended>> {
        let mut ended = vec![];
        while let Some((index, Job { name, mut command })) = next() {
            say(&format!("     Running {name} ({} of {many})", index + 1));
            let began = Instant::now();
            let (status, processor) = read_measured(&mut command, |line| {
                say(&format!("{name}: {line}"));
                hear(&name, line);
            })?;
            ended.push(Ended { name, status, time: began.elapsed(), processor });
        }
        Ok(ended)
    };
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
    });
    results.into_iter().try_fold(vec![], |mut all, result| {
        all.extend(result.map_err(|_| anyhow!("a thread that runs programs panicked"))??);
        Ok(all)
    })
}

/// Runs a command, and gives each line of its outputs as it comes. One pipe for both, so that their order stays.
pub(crate) fn read_lines(command: &mut Command, line: impl FnMut(&str)) -> Result<ExitStatus> {
    Ok(read_measured(command, line)?.0)
}

/// The same, with the processor time, where it is known.
pub(crate) fn read_measured(
    command: &mut Command,
    mut line: impl FnMut(&str),
) -> Result<(ExitStatus, Option<Duration>)> {
    let (reader, writer) = pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let name = steps::words(command);
    let mut child = command.spawn().with_context(|| format!("cannot run `{name}`"))?;
    // The command holds the writing end, and the reader waits for its last holder.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    for bytes in BufReader::new(reader).split(b'\n') {
        line(&String::from_utf8_lossy(&bytes?));
    }
    Ok(processor::wait(&mut child)?)
}

/// Prints a line whole, whoever else prints.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_named_and_the_others_run() {
        let job = |name: &str, script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Job { name: name.into(), command }
        };
        let heard = Mutex::new(vec![]);
        let jobs = vec![job("bad", "exit 3"), job("good", "echo one; echo two >&2"), job("last", "true")];
        let ended =
            run_all(jobs, |name, line| heard.lock().unwrap().push(format!("{name}: {line}"))).unwrap();
        assert_eq!(*heard.lock().unwrap(), ["good: one", "good: two"]);
        let failed: Vec<_> = ended.iter().filter(|one| !one.status.success()).collect();
        assert_eq!((ended.len(), failed.len(), failed[0].name.as_str()), (3, 1, "bad"));
        assert_eq!(failed[0].status.code(), Some(3));
        assert!(!cfg!(target_os = "linux") || ended.iter().all(|one| one.processor.is_some()));
    }
}

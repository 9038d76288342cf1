//! `cargo xtask mpi`: the ranks of an MPI program, with an MPI that is fetched, without root, into the cache folder.
//!
//! MPICH, because it finds its parts wherever it lies, and libclang, which the bindings are made with, both from a release of
//! Debian whose C library every later one can stand in for. Then the crate `crates/mpi`, a workspace of its own, is checked as the
//! others are, and its test program runs on 1, 2, 3, 4 and 8 ranks of this machine, with a rank that ends among them. `cargo xtask test`
//! leaves out the lints and some of the numbers, unless it is `--long`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::length::Length;
use crate::software::Machine;
use crate::software::apt::packages;
use crate::software::fetch::{put_in_place, remove_leftovers, unpack};
use crate::software::{self, Choice, Launcher};
use crate::{build, steps};

/// The step's name.
pub(crate) const STEP: &str = "MPI ranks";

/// The release that the packages come from.
const SUITE: &str = "bookworm";

/// Names the folder in the cache.
const STEM: &str = "mpich-4.0";

/// MPICH and what its library and its launcher load; libclang and what that loads, but for what every system has.
const PACKAGES: [&str; 16] = [
    "mpich",
    "libmpich12",
    "libmpich-dev",
    "libhwloc15",
    "libslurm38",
    "libucx0",
    "libudev1",
    "libclang1-14",
    "libllvm14",
    "libbsd0",
    "libedit2",
    "libffi8",
    "libicu72",
    "libmd0",
    "libxml2",
    "libz3-4",
];

/// Numbers of ranks in a long run, and in every run: each process compiles for itself.
const RANKS: [usize; 5] = [1, 2, 3, 4, 8];
const FEW_RANKS: [usize; 2] = [1, 3];

/// Seconds after which mpirun ends everything.
const TIMEOUT: &str = "400";

/// What to do where it cannot be had.
const REMEDY: &str = "build crates/mpi by hand where MPICH or Open MPI and libclang are installed (the packages mpich, libmpich-dev, \
                      libclang-dev), and run its test program by mpirun";

/// A fetched MPI.
pub(crate) struct Mpi {
    root: PathBuf,
    libraries: PathBuf,
}

/// `cargo xtask mpi`.
pub(crate) fn run() -> Result<()> {
    check(&mpi()?, &software::launcher(Choice::Auto)?, Length::Long)
}

/// MPI, fetched at first use; the error is the reason why it cannot be had.
pub(crate) fn mpi() -> Result<Mpi> {
    ensure!(cfg!(target_os = "linux"), "it is fetched for Linux alone; {REMEDY}");
    fetched().map_err(|cause| anyhow::anyhow!("{cause:#}; {REMEDY}"))
}

fn fetched() -> Result<Mpi> {
    let (machine, cache) = (Machine::here()?, software::cache_folder()?);
    let stem = format!("{STEM}-{}", machine.debian);
    let root = cache.join(&stem);
    remove_leftovers(&cache, &stem);
    if !root.exists() {
        let part = cache.join(format!("{stem}.{}.part", std::process::id()));
        fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        eprintln!("fetching MPICH and libclang from the Debian archive ...");
        let made = make(&machine, &part, &root).and_then(|()| put_in_place(&part, &root));
        let _ = fs::remove_dir_all(&part);
        made?;
    }
    Ok(Mpi { libraries: root.join(machine.libraries), root })
}

/// Unpacks everything into `part`, for `root`.
fn make(machine: &Machine, part: &Path, root: &Path) -> Result<()> {
    let apt = part.join("apt");
    for package in packages(SUITE, &PACKAGES, machine, &apt)? {
        unpack(&package, part)?;
    }
    fs::remove_dir_all(apt)?;
    let triple = machine.libraries.rsplit('/').next().unwrap_or_default();
    // What Debian's own compiler script would say, had it been installed.
    let script = format!(
        "#!/bin/sh\n\
         # The C compiler with the fetched MPI. Written by `cargo xtask`.\n\
         flags=\"-I{root}/usr/include/{triple}/mpich -L{root}/{} -lmpich\"\n\
         if [ \"$1\" = -show ]; then echo \"cc $flags\"; exit 0; fi\n\
         exec cc \"$@\" $flags\n",
        machine.libraries,
        root = root.display(),
    );
    fs::write(part.join("mpicc"), script)?;
    software::make_executable(&part.join("mpicc"))
}

/// The crate's format and its test program on numbers of ranks; in a long run on more of them, and lints, for which everything that
/// the crate depends on is checked once more.
pub(crate) fn check(mpi: &Mpi, launcher: &Launcher, length: Length) -> Result<()> {
    let long = length == Length::Long;
    let manifest = steps::root().join("crates/mpi/Cargo.toml");
    let cargo = |words: &[&str]| -> Result<Command> {
        let mut cargo = mpi.cargo()?;
        cargo.arg(words[0]).arg("--manifest-path").arg(&manifest).args(&words[1..]);
        Ok(cargo)
    };
    steps::succeed(&mut cargo(&["fmt", "--check"])?)?;
    if long {
        steps::succeed(&mut cargo(&["clippy", "--all-targets", "--", "-D", "warnings"])?)?;
    }
    let test = mpi.executable(cargo(&["test", "--no-run", "--test", "ranks"])?, "ranks")?;
    let launcher = launcher.with_libraries(&mpi.libraries, &build::target()?.join("mpi-launch"))?;
    for ranks in if long { &RANKS[..] } else { &FEW_RANKS } {
        let ranks = *ranks;
        mpi.ranks(&launcher, &test, &[], ranks, "within their bounds", ranks)?;
    }
    mpi.ranks(&launcher, &test, &["--differ"], 3, "was given another pattern", 3)?;
    // The others see it, and end in their own way.
    mpi.ranks(&launcher, &test, &["--exit"], 3, "an error in time", 2)
}

impl Mpi {
    /// cargo, where it finds this MPI.
    fn cargo(&self) -> Result<Command> {
        let include = Command::new("cc").arg("-print-file-name=include").output().context("no C compiler")?;
        let mut cargo = steps::cargo();
        cargo
            .env("MPICC", self.root.join("mpicc"))
            .env("LIBCLANG_PATH", self.root.join("usr/lib/llvm-14/lib"))
            .env("BINDGEN_EXTRA_CLANG_ARGS", format!("-I{}", String::from_utf8_lossy(&include.stdout).trim()))
            .env("LD_LIBRARY_PATH", &self.libraries)
            .env("CARGO_TARGET_DIR", build::target()?);
        Ok(cargo)
    }

    /// Builds a test, and gives its file.
    fn executable(&self, mut cargo: Command, name: &str) -> Result<PathBuf> {
        let output = cargo.args(["--message-format", "json-render-diagnostics"]).output().context("cargo")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        executable(&String::from_utf8_lossy(&output.stdout), name)
            .with_context(|| format!("cargo names no executable of {name}"))
    }

    /// Runs a program on so many ranks, `times` of which have to say `words`, and none that it failed.
    fn ranks(
        &self,
        launcher: &Launcher,
        program: &Path,
        arguments: &[&str],
        ranks: usize,
        words: &str,
        times: usize,
    ) -> Result<()> {
        let started = launcher.command(program);
        let mut mpirun = Command::new(self.root.join("usr/bin/mpiexec.hydra"));
        mpirun
            .args(["-disable-auto-cleanup", "-n", &ranks.to_string()])
            .arg(started.get_program())
            .args(started.get_args())
            .args(arguments)
            .env("MPIEXEC_TIMEOUT", TIMEOUT)
            .env("LD_LIBRARY_PATH", &self.libraries)
            // What is run once is not optimised: see the tests.
            .env("GALLIVM_PERF", "nopt");
        let output = mpirun.output().with_context(|| format!("cannot run {}", self.root.display()))?;
        let said = said(&output);
        eprint!("{said}");
        let found = said.lines().filter(|line| line.contains(words)).count();
        ensure!(
            found == times && !said.contains("FAILED"),
            "{ranks} ranks: {found} of {times} said `{words}`"
        );
        // A rank that ends on purpose is no success.
        ensure!(output.status.success() || times < ranks, "{ranks} ranks: {}", output.status);
        Ok(())
    }
}

/// All that a program printed.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The executable of a test in cargo's messages, one per line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let file = |line: &str| {
        let path = line.split("\"executable\":\"").nth(1)?.split('"').next()?;
        let stem = Path::new(path).file_name()?.to_str()?.rsplit_once('-')?.0.to_string();
        (stem == name).then(|| PathBuf::from(path))
    };
    messages.lines().find_map(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_by_their_names() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"executable\":\"/t/debug/deps/other-12\",\"fresh\":true}\n\
                        {\"executable\":\"/t/debug/deps/ranks-ab\",\"fresh\":true}\n";
        assert_eq!(executable(messages, "ranks"), Some("/t/debug/deps/ranks-ab".into()));
        assert_eq!(executable(messages, "rank"), None);
    }
}

//! How to run a program on an adapter.
//!
//! The fetched driver is built against a newer C library than the machine may have, so a program on it is started
//! through the fetched dynamic linker with the fetched libraries. The environment that this takes stays with that
//! program: cargo, rustc and the shell never see those libraries. A small script in the cache folder does it all,
//! because cargo's `runner` wants one program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Machine;

/// Holds the script's path in everything the script runs: a program that starts another one which needs the
/// adapter (the tests of the command line do) starts it through this.
const LAUNCHER_VARIABLE: &str = "WGPU_ATTENTION_LAUNCHER";

/// Runs programs on an adapter.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// The adapter in words.
    description: String,
    /// The script to put before a program; none on the system's own driver.
    script: Option<PathBuf>,
}

impl Launcher {
    /// Runs programs as they are.
    pub(crate) fn system(description: String) -> Self {
        Self { description, script: None }
    }

    /// Runs programs through a script.
    pub(crate) fn script(description: String, script: PathBuf) -> Self {
        Self { description, script: Some(script) }
    }

    /// The adapter in words.
    pub(crate) fn description(&self) -> &str {
        &self.description
    }

    /// A command that runs `program` on the adapter.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(script) = &self.script else { return Command::new(program) };
        let mut command = Command::new(script);
        command.arg(program);
        command
    }

    /// The same for programs that also need the libraries of a folder, which are looked for last; its script is written to `script`.
    ///
    /// Without a script, `LD_LIBRARY_PATH` is all that they need.
    pub(crate) fn with_libraries(&self, folder: &Path, script: &Path) -> Result<Self> {
        let Some(own) = &self.script else { return Ok(Self::system(self.description.clone())) };
        let text = std::fs::read_to_string(own).with_context(|| format!("cannot read {}", own.display()))?;
        let (before, after) = text
            .split_once("--library-path \"")
            .and_then(|(before, after)| Some((before, after.split_once('"')?)))
            .map(|(before, (path, after))| (format!("{before}--library-path \"{path}"), after))
            .with_context(|| format!("{} sets no library path", own.display()))?;
        std::fs::write(script, format!("{before}\":{}{after}", quote(folder)))?;
        std::fs::set_permissions(script, std::fs::metadata(own)?.permissions())?;
        Ok(Self::script(self.description.clone(), script.into()))
    }

    /// A cargo command whose tests, benches, examples and programs run on the adapter, through these words before the script.
    pub(crate) fn cargo_through(&self, before: &[&Path]) -> Result<Command> {
        let mut cargo = crate::steps::cargo();
        let words: Vec<_> = before.iter().copied().chain(self.script.as_deref()).collect();
        if !words.is_empty() {
            let triple = host_triple()?;
            if words.iter().all(|word| is_one_word(word)) {
                let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                cargo.env(runner_variable(&triple), words.join(" "));
            } else {
                // The variable's value is split at spaces; a list in a setting is not.
                let list: Vec<_> = words.iter().map(|word| format!("{:?}", word.to_string_lossy())).collect();
                cargo.args(["--config", &format!("target.{triple}.runner=[{}]", list.join(","))]);
            }
        }
        Ok(cargo)
    }

    /// Shell lines after which `cargo test` and `cargo run` use the adapter, with how to run any other program.
    pub(crate) fn shell(&self) -> Result<String> {
        let Some(script) = &self.script else { return Ok(format!("# {}: nothing to set", self.description)) };
        let quoted = quote(script);
        let runner = runner_variable(&host_triple()?);
        let note =
            if is_one_word(script) { "" } else { "# (cargo splits this at its spaces: move the cache)\n" };
        Ok(format!(
            "# {}\n# cargo test, bench, run:\n{note}export {runner}={quoted}\n\
             # tests that start the command line themselves:\nexport {LAUNCHER_VARIABLE}={quoted}\n\
             # any program: {quoted} PROGRAM ARGS",
            self.description
        ))
    }
}

/// The text of the script that runs programs on the driver unpacked at `root`, with the `settings` that the driver needs:
/// names and values, in which `$root` stands for the folder; `options` are more of the dynamic linker.
fn script_text(root: &Path, settings: &[(&str, String)], machine: &Machine, options: &str) -> String {
    let (root, Machine { libraries, linker, .. }) = (quote(root), machine);
    let settings: String =
        settings.iter().map(|(name, value)| format!("export {name}=\"{value}\"\n")).collect();
    format!(
        "#!/bin/sh\n\
         # Runs a program on the fetched driver: launch PROGRAM ARGS. Written by `cargo xtask`.\n\
         root={root}\n\
         {settings}\
         export {LAUNCHER_VARIABLE}=\"$root/launch\"\n\
         program=$1\n\
         shift\n\
         # The dynamic linker takes paths, not names on the path.\n\
         case $program in */*) ;; *) program=$(command -v -- \"$program\") || exit 127 ;; esac\n\
         exec \"$root/{libraries}/{linker}\" {options}--library-path \"$root/{libraries}\" \"$program\" \"$@\"\n"
    )
}

/// Writes a script that runs programs on the driver at `root`.
pub(crate) fn write_script(
    script: &Path,
    root: &Path,
    settings: &[(&str, String)],
    options: &str,
    machine: &Machine,
) -> Result<()> {
    std::fs::write(script, script_text(root, settings, machine, options))?;
    make_executable(script)
}

/// Lets the file be run.
#[cfg(unix)]
pub(crate) fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

/// Lets the file be run: nothing to do, and nothing is fetched here.
#[cfg(not(unix))]
pub(crate) fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

/// The path as one word of the shell.
pub(crate) fn quote(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

/// Whether cargo takes the path as one word.
fn is_one_word(path: &Path) -> bool {
    !path.to_string_lossy().contains(char::is_whitespace)
}

/// The environment variable that sets cargo's runner for a target.
fn runner_variable(triple: &str) -> String {
    format!("CARGO_TARGET_{}_RUNNER", triple.to_uppercase().replace(['-', '.'], "_"))
}

/// The target that cargo builds for on this machine.
fn host_triple() -> Result<String> {
    let output =
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(Into::into)
        .context("`rustc -vV` names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { debian: "amd64", libraries: "lib", linker: "ld.so" };

    #[test]
    fn the_runner_variable_is_cargos() {
        assert_eq!(
            runner_variable("x86_64-unknown-linux-gnu"),
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"
        );
    }

    #[test]
    fn paths_are_one_word_of_the_shell() {
        assert_eq!(quote(Path::new("/a b/it's")), r"'/a b/it'\''s'");
        assert!(is_one_word(Path::new("/a/b")) && !is_one_word(Path::new("/a b")));
    }

    #[test]
    fn a_system_adapter_runs_programs_as_they_are() {
        let launcher = Launcher::system("the driver".into());
        assert_eq!(launcher.command("prog").get_program(), "prog");
        assert_eq!(launcher.shell().unwrap(), "# the driver: nothing to set");
    }

    #[test]
    fn other_libraries_come_last() {
        let folder = std::env::temp_dir().join(format!("launcher-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [own, script] = ["own", "more"].map(|name| folder.join(name));
        std::fs::write(&own, script_text(Path::new("/c"), &[], &MACHINE, "")).unwrap();
        let launcher = Launcher::script("lavapipe".into(), own);
        assert_eq!(launcher.with_libraries(Path::new("/a b"), &script).unwrap().script, Some(script.clone()));
        let text = std::fs::read_to_string(script).unwrap();
        assert!(text.contains("--library-path \"$root/lib\":'/a b' \"$program\""), "{text}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_fetched_adapter_runs_programs_through_its_script() {
        let launcher = Launcher::script("lavapipe".into(), "/cache/launch".into());
        let command = launcher.command("prog");
        assert_eq!(command.get_program(), "/cache/launch");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["prog"]);
        let settings = [("VK_DRIVER_FILES", "$root/a.json".to_string())];
        let text = script_text(Path::new("/c d"), &settings, &MACHINE, "--preload a.so ");
        assert!(
            text.contains("root='/c d'\nexport VK_DRIVER_FILES=\"$root/a.json\"\n")
                && text.contains("exec \"$root/lib/ld.so\" --preload a.so --library-path "),
            "{text}"
        );
    }
}

//! Developer commands: `cargo xtask help` lists them.

mod api;
mod attention;
mod beside;
mod build;
mod conformance;
mod deny;
mod frameworks;
mod gates;
mod isa;
mod jobs;
mod length;
mod mpi;
mod newcomer;
mod node;
mod processor;
mod programs;
mod pypi;
mod python;
mod release;
mod rules;
mod shares;
mod slowest;
mod software;
mod steps;
mod test;
mod turns;
mod validate;
mod web;

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use length::Length;
use software::Choice;

const HELP: &str = "\
cargo xtask COMMAND

  test [--adapter auto|software|system] [--quick | --long] [-- ARGS...]
                        all checks and tests, in which each run draws some of what would take too long, and lists the
                        rest as not run; ARGS go to `cargo test`; --quick draws fewer tests and cases, and leaves out
                        what runs beside the tests; --long has everything, each case under both kinds of tile
  attention ARGS...     build the command line and run it on whatever adapter is there (= cargo attention ARGS...)
  adapter-env [--adapter auto|software|system]
                        print what it takes to run any program on the adapter, as lines for a shell
  launch PROGRAM ARGS...
                        run a program on the adapter
  api [--bless]         compare everything public with docs/API.txt, or write that
  deny                  check licences, bans and sources of everything we depend on
  gates                 static checks of every shader that the crate can generate: lints, translations, Tint,
                        HLSL by Slang, races between lanes
  validate ARGS...      every kernel under Vulkan's validation layer; `cargo xtask validate --help`
  isa ARGS...           shader statistics for every vendor's GPUs, without one; `cargo xtask isa --help`
  conformance ARGS...   every kernel on every implementation of WebGPU within reach; `cargo xtask conformance --help`
  web [--check | --check-report]
                        build the page that draws patterns, and runs and times the kernels in a browser, as one file;
                        --check tests it in the machine's Chromium or a fetched one, --check-report the report of
                        `attention bench`
  mpi                   attention over the ranks of an MPI program, on a fetched MPI: checks of crates/mpi, its test
                        program on 1 to 8 ranks, with a rank that ends
  burn                  the kernels on burn's tensors (the workspace frameworks/, several hundred crates): checks and tests
  candle                the kernels on candle's tensors (the workspace frameworks/candle): checks and tests
  newcomer              do what the README says in a new crate outside the workspace, and run its programs
  python                do what docs/PYTORCH.md says, and have its files judged
  release               build what would be published from its own files, and the library with the oldest versions and the
                        oldest Rust that its manifest allows
  rules                 check the rules of dependence between the folders
  help                  this text

Where Linux has no Vulkan driver, a software adapter is fetched into a cache folder
(wgpu-attention in $WGPU_ATTENTION_CACHE, else in $XDG_CACHE_HOME, else in ~/.cache).";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    api::rustdoc(&arguments).unwrap_or_else(|| run(&arguments)).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs the command that the arguments name.
fn run(arguments: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = arguments.split_first() else {
        bail!("no command; `cargo xtask help` lists them")
    };
    match command.as_str() {
        "test" => return test::run(&test_options(rest)?),
        "api" => return api::run(rest),
        "attention" => return attention::run(rest),
        "isa" => return isa::run(rest),
        "release" => return release::run(rest),
        "conformance" => return conformance::run(rest),
        programs::RUNNER => return programs::run(rest),
        beside::COMMAND => beside::run(rest)?,
        "validate" => return validate::run(rest),
        "web" => return web::run(rest),
        "launch" => {
            let (program, rest) = rest.split_first().context("launch: no program")?;
            let launcher = software::launcher(Choice::Auto)?;
            let status = launcher.command(program).args(rest).status();
            return Ok(build::exit_code(status.with_context(|| format!("cannot run {program}"))?));
        }
        "adapter-env" => {
            let options = test_options(rest)?;
            let only = options.length == Length::Usual && options.to_cargo_test.is_empty();
            ensure!(only, "adapter-env takes only --adapter");
            println!("{}", software::launcher(options.adapter)?.shell()?);
        }
        "burn" => frameworks::BURN.run()?,
        "candle" => frameworks::CANDLE.run()?,
        "deny" => deny::run()?,
        "gates" => gates::run()?,
        "mpi" => mpi::run()?,
        "python" => python::check(&software::launcher(Choice::Auto)?)?,
        "newcomer" => newcomer::check(&software::launcher(Choice::Auto)?)?,
        "rules" => rules::check(&steps::root())?,
        "help" | "--help" | "-h" => println!("{HELP}"),
        unknown => bail!("unknown command `{unknown}`; `cargo xtask help` lists them"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads `[--adapter WHICH] [--quick | --long] [-- ARGS...]`.
fn test_options(arguments: &[String]) -> Result<test::Options> {
    let mut options = test::Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--adapter" => options.adapter = rest.next().context("--adapter needs a value")?.parse()?,
            "--quick" | "--long" => {
                ensure!(options.length == Length::Usual, "--quick and --long exclude each other");
                options.length = if argument == "--quick" { Length::Quick } else { Length::Long };
            }
            "--" => options.to_cargo_test = rest.by_ref().cloned().collect(),
            _ => match argument.strip_prefix("--adapter=") {
                Some(value) => options.adapter = value.parse()?,
                None => bail!("unknown argument `{argument}`; arguments to `cargo test` follow `--`"),
            },
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<test::Options> {
        test_options(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(options("").unwrap(), test::Options::default());
        let all = options("--quick --adapter software -- --lib -- --nocapture").unwrap();
        assert!(all.length == Length::Quick && all.adapter == Choice::Software);
        assert_eq!(all.to_cargo_test, ["--lib", "--", "--nocapture"]);
        assert_eq!(options("--long").unwrap().length, Length::Long);
        assert_eq!(options("--adapter=system").unwrap().adapter, Choice::System);
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert!(options("--fast").unwrap_err().to_string().contains("`--fast`"));
        assert!(options("--quick --long").unwrap_err().to_string().contains("exclude"));
        assert!(options("--adapter").unwrap_err().to_string().contains("--adapter"));
        assert!(run(&["nothing".into()]).unwrap_err().to_string().contains("`nothing`"));
    }
}

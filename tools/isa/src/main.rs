//! `cargo xtask isa`: the statistics of WGSL files, or of every kernel of the crate.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use wgpu_attention_isa::measure::{CHILD, Measured, child, launcher, measure_all};
use wgpu_attention_isa::{Checks, GPUS, Gpu, budget, gpu, predictions, report, spirv};

const HELP: &str = "\
cargo xtask isa [OPTIONS] [FILE.wgsl ...]

Statistics of the files' first compute entry points; without files, of every kernel of the crate.

  --gpu NAME,...  GPUs (dg2,bmg,ampere,adreno740,navi31,navi21,gfx1201,vega10,m1; else all of them)
  --only TEXT     only kernels of the crate whose label contains the text
  --few           only two kernels of the crate: attention and a matrix product
  --families      only the first kernel of each family, as budgets have it of all GPUs but navi31 and navi21
  --predicted     only the kernels that docs/SPEED.md predicts, of each GPU those that it runs
  --checked       with all run-time checks, as wgpu has them by default
  --unchecked     without any
                  (else as the crate runs its kernels: checked, but workgroup memory is not zeroed)
  --isa           print the instructions too
  --markdown      print tables for a page
  --check         compare the crate's kernels with tools/isa/budgets; status 1 where one falls short
  --bless         write tools/isa/budgets and tools/isa/statistics from what the kernels reach now, those that are predicted
                  also unchecked, and then as --predictions
  --predictions   write crates/bench/src/predictions.json and the table of docs/SPEED.md from tools/isa/statistics as it is

A GPU whose compiler cannot be had on this machine is listed as not run.";

/// Labels of the kernels that `--few` stands for.
const FEW: [&str; 2] =
    ["attention d64 dv64 f32->f32 tile 64x32 chunk 8 v 16 block 64x64", "matmul f32xf32->f32 tile 64x64"];

/// What to do.
#[derive(Debug, PartialEq)]
struct Options {
    gpus: Vec<&'static str>,
    only: String,
    few: bool,
    families: bool,
    predicted: bool,
    checks: Checks,
    isa: bool,
    markdown: bool,
    check: bool,
    bless: bool,
    predictions: bool,
    child: bool,
    files: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let done = options(&arguments).and_then(|options| run(&options));
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Reads the command line.
fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        gpus: GPUS.iter().map(|gpu| gpu.name).collect(),
        only: String::new(),
        few: false,
        families: false,
        predicted: false,
        checks: Checks::as_run(),
        isa: false,
        markdown: false,
        check: false,
        bless: false,
        predictions: false,
        child: false,
        files: Vec::new(),
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--gpu" => options.gpus = gpus(value()?)?,
            "--only" => options.only = value()?.clone(),
            "--few" => options.few = true,
            "--families" => options.families = true,
            "--predicted" => options.predicted = true,
            "--checked" => options.checks = Checks::checked(),
            "--unchecked" => options.checks = Checks::unchecked(),
            "--isa" => options.isa = true,
            "--markdown" => options.markdown = true,
            "--check" => options.check = true,
            "--bless" => options.bless = true,
            "--predictions" => options.predictions = true,
            CHILD => (options.child, options.gpus) = (true, gpus(value()?)?),
            unknown if unknown.starts_with('-') => bail!("unknown option `{unknown}`; see --help"),
            file => options.files.push(file.into()),
        }
    }
    let changed = !options.files.is_empty() || options.checks != Checks::as_run();
    let judges = options.check || options.bless;
    ensure!(!(judges && changed), "--check and --bless are for the crate's kernels as it runs them");
    let all_kernels = options.only.is_empty() && !options.few && !options.families && !options.predicted;
    ensure!(!options.bless || all_kernels, "--bless is for all of the crate's kernels");
    Ok(options)
}

/// The GPUs of a list of names.
fn gpus(names: &str) -> Result<Vec<&'static str>> {
    let known = |name: &str| gpu::named(name).map(|gpu| gpu.name);
    names
        .split(',')
        .map(|name| known(name).with_context(|| format!("unknown GPU `{name}`; see --help")))
        .collect()
}

/// Does it.
fn run(options: &Options) -> Result<ExitCode> {
    if options.predictions {
        return predictions::write().map(|()| ExitCode::SUCCESS);
    }
    let shaders = shaders(options)?;
    ensure!(!shaders.is_empty(), "no kernel's label contains `{}`", options.only);
    if options.child {
        return child(&shaders).map(|()| ExitCode::SUCCESS);
    }
    let wanted = GPUS.iter().filter(|gpu| options.gpus.contains(&gpu.name));
    let (there, missing): (Vec<_>, Vec<_>) =
        wanted.map(|gpu| (gpu, launcher(gpu))).partition(|(_, launcher)| launcher.is_some());
    let there: Vec<(&Gpu, PathBuf)> =
        there.into_iter().filter_map(|(gpu, launcher)| Some((gpu, launcher?))).collect();
    ensure!(!there.is_empty(), "no compiler of these GPUs: start this through `cargo xtask isa`");
    let measured = measure_all(&std::env::current_exe()?, &there, |gpu| selection(options, gpu))?;
    let mut failed = false;
    for ((gpu, _), measured) in there.iter().zip(&measured) {
        for label in &measured.skipped {
            if !options.check && !options.bless {
                eprintln!("{label}: not on {}, which has no such matrix units", gpu.name);
            }
        }
        failed |= !show(options, gpu, measured)?;
    }
    if options.bless {
        write_unchecked(&there)?;
        predictions::write()?;
    }
    missing.iter().for_each(|(gpu, _)| println!("{}: not run, no compiler on this machine", gpu.name));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Writes a page per GPU of what the predicted kernels are without run-time checks.
fn write_unchecked(gpus: &[(&'static Gpu, PathBuf)]) -> Result<()> {
    let arguments = |_: &Gpu| ["--predicted", "--unchecked"].map(String::from).to_vec();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(predictions::UNCHECKED);
    fs::create_dir_all(&folder)?;
    for ((gpu, _), measured) in gpus.iter().zip(measure_all(&std::env::current_exe()?, gpus, arguments)?) {
        let page = report::markdown(gpu, &measured.rows, Checks::unchecked(), &measured.driver);
        fs::write(folder.join(format!("{}.md", gpu.name)), page)?;
    }
    Ok(())
}

/// The arguments that make a child compile the same shaders; where budgets are concerned, those that the GPU has budgets for.
fn selection(options: &Options, gpu: &Gpu) -> Vec<String> {
    let mut arguments = options.files.clone();
    if options.families || ((options.check || options.bless) && !gpu.every) {
        arguments.push("--families".into());
    }
    if !options.only.is_empty() {
        arguments.extend(["--only".into(), options.only.clone()]);
    }
    if options.few {
        arguments.push("--few".into());
    }
    if options.predicted {
        arguments.push("--predicted".into());
    }
    match options.checks {
        checks if checks == Checks::checked() => arguments.push("--checked".into()),
        checks if checks == Checks::unchecked() => arguments.push("--unchecked".into()),
        _ => {}
    }
    arguments
}

/// Prints, writes or compares what was measured on a GPU; whether no kernel falls short.
fn show(options: &Options, gpu: &Gpu, measured: &Measured) -> Result<bool> {
    let Measured { driver, rows, .. } = measured;
    let page = report::markdown(gpu, rows, options.checks, driver);
    match (options.markdown, options.check || options.bless) {
        (true, _) => print!("{page}"),
        (false, false) => print!("{}", report::text(rows)),
        (false, true) => {}
    }
    if options.isa {
        rows.iter().for_each(|row| println!("\n{} on {}\n{}", row.label, gpu.name, row.assembly));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = folder.join("budgets").join(format!("{}.txt", gpu.name));
    if options.bless {
        fs::create_dir_all(folder.join("budgets"))?;
        fs::create_dir_all(folder.join("statistics"))?;
        fs::write(&file, budget::write(rows, driver)?)?;
        fs::write(folder.join("statistics").join(format!("{}.md", gpu.name)), page)?;
    }
    if options.check { check(&file, options, gpu, measured) } else { Ok(true) }
}

/// The shaders to measure, with their labels.
fn shaders(options: &Options) -> Result<Vec<(String, spirv::Shader)>> {
    if options.files.is_empty() {
        let mut all = wgpu_attention::wgsl::variants();
        all.retain(|shader| !shader.for_cpus && (!options.few || FEW.contains(&shader.label.as_str())));
        if options.predicted {
            all.retain(|shader| options.gpus.iter().any(|gpu| predictions::is_predicted(gpu, &shader.label)));
        }
        if options.families {
            let mut seen = BTreeSet::new();
            all.retain(|shader| seen.insert(gpu::family(&shader.label).join(" ")));
        }
        let wanted = all.iter().filter(|shader| shader.label.contains(&options.only));
        return wanted
            .map(|shader| {
                let translated = spirv::translate(&shader.text, Some(shader.entry), options.checks);
                Ok((shader.label.clone(), translated.with_context(|| shader.label.clone())?))
            })
            .collect();
    }
    let read = |file: &String| {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        let translated = spirv::translate(&text, None, options.checks).with_context(|| file.clone())?;
        Ok((file.clone(), translated))
    };
    options.files.iter().map(read).collect()
}

/// Compares with the committed budgets; whether none falls short.
fn check(file: &Path, options: &Options, gpu: &Gpu, measured: &Measured) -> Result<bool> {
    let Measured { driver, rows, .. } = measured;
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read {}: make it with --bless", file.display()))?;
    let budgets = budget::read(&text)?;
    let mut found = budget::shortfalls(&budgets, rows);
    if options.only.is_empty() && !options.few {
        found.extend(budget::forgotten(&budgets, rows));
    }
    found.iter().for_each(|line| println!("{line}"));
    if !found.is_empty() && !text.contains(driver) {
        println!("note: the budgets of {} are not of {driver}", gpu.name);
    }
    println!("{}: {} kernels, {} short of their budgets", gpu.name, rows.len(), found.len());
    Ok(found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        options(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let all = read("--gpu navi21,m1 --unchecked --isa --markdown a.wgsl b.wgsl").unwrap();
        assert_eq!(all.gpus, ["navi21", "m1"]);
        assert_eq!(all.files, ["a.wgsl", "b.wgsl"]);
        assert!(all.isa && all.markdown && all.checks == Checks::unchecked());
        assert_eq!(read("").unwrap().gpus.len(), GPUS.len());
        assert!(read("--gpu voodoo").unwrap_err().to_string().contains("voodoo"));
    }

    #[test]
    fn a_child_is_told_the_same_shaders() {
        let m1 = gpu::named("m1").unwrap();
        for line in ["a.wgsl --checked", "--only x --unchecked", "--few", "--families", ""] {
            let own = read(line).unwrap();
            let words = selection(&own, m1);
            let told = options(&[&[CHILD.into(), "m1".into()], &words[..]].concat()).unwrap();
            assert_eq!(
                (told.files, told.only, told.few, told.checks),
                (own.files, own.only, own.few, own.checks)
            );
            assert!(told.child && told.gpus == ["m1"] && told.families == own.families);
        }
        let navi = gpu::named("navi31").unwrap();
        for (line, of_m1, of_navi) in
            [("--check", true, false), ("--bless", true, false), ("--check --few", true, false)]
        {
            let families = |gpu| selection(&read(line).unwrap(), gpu).contains(&"--families".into());
            assert_eq!((families(m1), families(navi)), (of_m1, of_navi), "{line}");
        }
    }

    #[test]
    fn budgets_are_for_the_crates_kernels() {
        assert!(read("--check --few --gpu m1").unwrap().check);
        for line in [
            "--check a.wgsl",
            "--bless --unchecked",
            "--bless --only x",
            "--bless --few",
            "--bless --families",
            "--fast",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_few_kernels_exist_and_are_the_first_of_their_families() {
        assert_eq!(shaders(&read("--few").unwrap()).unwrap().len(), FEW.len());
        let families = shaders(&read("--families").unwrap()).unwrap();
        assert!((60..200).contains(&families.len()), "{}", families.len());
        assert!(FEW.iter().all(|few| families.iter().any(|(label, _)| label == few)));
    }
}

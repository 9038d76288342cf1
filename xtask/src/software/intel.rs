//! What stands in for the kernel's driver of Intel's GPUs: Debian has none, so that it is built from Mesa's source.
//!
//! 25 files of C of a release whose interface to the kernel suits the newer driver, without Mesa's own way of building, which
//! would want ten programs more. It needs a C compiler and Python with pip; the rest is fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::apt::{packages, source};
use super::fetch::{in_cache, unpack};
use super::launcher::{quote, write_script};
use super::{BASE_SUITE, Machine, shims};
use crate::pypi;

/// The release of Mesa that this was tried with.
const VERSION: &str = "25.0";

/// The library.
const LIBRARY: &str = "libintel_noop_drm_shim.so";

/// What of the source is needed.
const SOURCES: [&str; 11] = [
    "include/drm-uapi/*",
    "include/*.h",
    "src/drm-shim/*",
    "src/c11/*",
    "src/compiler/*.h",
    "src/util/*",
    "src/intel/dev/*",
    "src/intel/tools/*",
    "src/intel/common/*",
    "src/intel/isl/isl.h",
    "src/intel/genxml/*",
];

/// Files that Python makes: the program with its input, and what it writes.
const GENERATED: [&[&str]; 3] = [
    &["src/intel/dev/intel_device_info_gen_h.py", "g/intel/dev/intel_device_info_gen.h"],
    &["src/intel/dev/intel_device_info_serialize_gen_c.py", "g/intel/dev/serialize.c"],
    &[
        "src/intel/dev/gen_wa_helpers.py",
        "src/intel/dev/mesa_defs.json",
        "g/intel/dev/intel_wa.h",
        "g/intel/dev/intel_wa.c",
    ],
];

/// What is compiled, without `.c`.
const COMPILED: [&str; 25] = [
    "src/drm-shim/device",
    "src/drm-shim/drm_shim",
    "src/intel/tools/intel_noop_drm_shim",
    "g/intel/dev/serialize",
    "g/intel/dev/intel_wa",
    "src/intel/dev/intel_device_info",
    "src/intel/dev/intel_hwconfig",
    "src/intel/dev/intel_kmd",
    "src/intel/dev/i915/intel_device_info",
    "src/intel/dev/xe/intel_device_info",
    "src/c11/impl/threads_posix",
    "src/util/parson",
    "src/util/anon_file",
    "src/util/futex",
    "src/util/hash_table",
    "src/util/ralloc",
    "src/util/set",
    "src/util/u_debug",
    "src/util/u_printf",
    "src/util/vma",
    "src/util/blob",
    "src/util/os_misc",
    "src/util/os_file",
    "src/util/log",
    "src/util/u_process",
];

/// What Mesa's own way of building finds out about the system: Linux with the GNU C library, GCC or clang.
const HAVE: [&str; 29] = [
    "PTHREAD",
    "STRUCT_TIMESPEC",
    "ENDIAN_H",
    "DLFCN_H",
    "LINUX_FUTEX_H",
    "MEMFD_CREATE",
    "SECURE_GETENV",
    "PROGRAM_INVOCATION_NAME",
    "POSIX_MEMALIGN",
    "REALLOCARRAY",
    "DIRENT_D_TYPE",
    "STRTOF",
    "STRTOK_R",
    "LIBDRM",
    "FUNC_ATTRIBUTE_PACKED",
    "FUNC_ATTRIBUTE_UNUSED",
    "FUNC_ATTRIBUTE_FORMAT",
    "__BUILTIN_EXPECT",
    "__BUILTIN_UNREACHABLE",
    "__BUILTIN_TYPES_COMPATIBLE_P",
    "__BUILTIN_FFS",
    "__BUILTIN_FFSLL",
    "__BUILTIN_CLZ",
    "__BUILTIN_CLZLL",
    "__BUILTIN_CTZ",
    "__BUILTIN_POPCOUNT",
    "__BUILTIN_POPCOUNTLL",
    "__BUILTIN_BSWAP32",
    "__BUILTIN_BSWAP64",
];

/// The script that runs a program on Intel's driver at `mesa`; what it needs is built at first use.
pub(super) fn script(mesa: &Path, machine: &Machine, cache: &Path) -> Result<PathBuf> {
    let stem = format!("intel-shim-{VERSION}-{}", machine.debian);
    let root = in_cache(cache, &stem, |part, root| {
        let start = Instant::now();
        eprintln!("building what stands in for the kernel's driver of Intel's GPUs, from Mesa's source ...");
        build(mesa, machine, part)?;
        let options = format!("--preload {} ", quote(&root.join(LIBRARY)));
        write_script(&part.join("launch"), mesa, &shims::settings(shims::INTEL), &options, machine)?;
        eprintln!("... kept in {} ({:.0} s)", root.display(), start.elapsed().as_secs_f64());
        Ok(())
    })?;
    Ok(root.join("launch"))
}

/// Builds the library into `part`.
fn build(mesa: &Path, machine: &Machine, part: &Path) -> Result<()> {
    // What is missing is said before anything is fetched.
    for (program, of) in [("cc", "a C compiler"), ("python3", "Python")] {
        let found = Command::new(program).arg("--version").output();
        ensure!(
            found.is_ok_and(|output| output.status.success()),
            "{of} ({program}) is needed to build its stand-in"
        );
    }
    let work = part.join("work");
    fs::create_dir_all(&work)?;
    pypi::install(&["mako", "markupsafe"], &work.join("python"))?;
    let tarball = source(BASE_SUITE, "mesa", &work.join("apt"))?;
    let mut tar = Command::new("tar");
    tar.current_dir(&work).args(["-x", "--strip-components=1", "--wildcards", "-f"]).arg(tarball);
    succeed(tar.args(SOURCES.map(|pattern| format!("*/{pattern}"))), "unpack Mesa's source")?;
    for package in packages(BASE_SUITE, &["libdrm-dev"], machine, &work.join("apt-drm"))? {
        unpack(&package, &work.join("drm"))?;
    }
    fs::create_dir_all(work.join("g/intel/dev"))?;
    for arguments in GENERATED {
        let mut python = Command::new("python3");
        python.current_dir(&work).env("PYTHONPATH", work.join("python")).args(arguments);
        succeed(&mut python, arguments[0])?;
    }
    let library = mesa.join(machine.libraries).join("libdrm.so.2");
    succeed(compiler(&work, &library).arg("-o").arg(part.join(LIBRARY)), "compile it")?;
    Ok(fs::remove_dir_all(work)?)
}

/// The C compiler with all that it is to compile.
fn compiler(work: &Path, libdrm: &Path) -> Command {
    let mut cc = Command::new("cc");
    cc.current_dir(work);
    cc.args(["-shared", "-fPIC", "-O1", "-s", "-w", "-std=gnu11", "-fvisibility=hidden"]);
    cc.args(["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-DPACKAGE_VERSION=\"25.0\""]);
    cc.args(["-DNDEBUG", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-DMAJOR_IN_SYSMACROS"]);
    cc.args(["-DUSE_GCC_ATOMIC_BUILTINS", "-DSUPPORT_INTEL_INTEGRATED_GPUS"]);
    cc.args(HAVE.map(|what| format!("-DHAVE_{what}")));
    let folders = ["g/intel/dev", "g", "g/intel", "include", "src", "src/intel", "src/intel/dev"];
    cc.args(folders.map(|folder| format!("-I{folder}")));
    cc.args(["drm/usr/include", "drm/usr/include/libdrm"].map(|folder| format!("-I{folder}")));
    cc.args(COMPILED.map(|file| format!("{file}.c"))).arg(libdrm).args(["-pthread", "-lm", "-ldl"]);
    cc
}

/// Runs a step; its error has the last line of what it complains about.
fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot {what}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = complaint.lines().find(|line| line.contains("rror")).or(complaint.lines().last());
    ensure!(output.status.success(), "cannot {what}: {}", first.unwrap_or("no message"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_says_why() {
        let mut shell = Command::new("sh");
        let error =
            succeed(shell.args(["-c", "echo 'x.c: error: no such' >&2; echo bye >&2; exit 1"]), "compile it");
        assert_eq!(error.unwrap_err().to_string(), "cannot compile it: x.c: error: no such");
    }

    #[test]
    fn the_compiler_gets_every_file() {
        let command = compiler(Path::new("/w"), Path::new("/l/libdrm.so.2"));
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(words.iter().filter(|word| word.ends_with(".c")).count(), COMPILED.len());
        assert!(words.contains(&"-DHAVE___BUILTIN_FFS".into()) && words.contains(&"/l/libdrm.so.2".into()));
    }
}

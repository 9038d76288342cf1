//! Fetching a driver from the Debian archive, without root.
//!
//! apt does the work, because it knows the machine's mirror and proxy, resolves dependencies and checks signatures;
//! it gets package lists, a status file and a cache of its own, so that it touches nothing of the system's. All is
//! made in a folder beside the final one, which gets its name when it is complete: a run that is killed leaves
//! nothing half-made under that name, and of two runs at once the slower one takes what the faster one made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::launcher::{Launcher, script_text};
use super::{BASE_SUITE, Driver, Interface, MANIFESTS};

/// Keyrings that the Debian archive is checked with (the name depends on the release).
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Names of releases in a path of the Debian main archive, to tell it from other archives.
const DEBIAN_SUITES: [&str; 9] =
    ["bullseye", "bookworm", "trixie", "forky", "sid", "unstable", "testing", "stable", "oldstable"];

/// Names of a processor family.
pub(crate) struct Machine {
    /// Debian's name of the architecture.
    pub(crate) debian: &'static str,
    /// Folder of its libraries.
    pub(crate) libraries: &'static str,
    /// Dynamic linker.
    linker: &'static str,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Result<Self> {
        Ok(match std::env::consts::ARCH {
            "x86_64" => Self {
                debian: "amd64",
                libraries: "usr/lib/x86_64-linux-gnu",
                linker: "ld-linux-x86-64.so.2",
            },
            "aarch64" => Self {
                debian: "arm64",
                libraries: "usr/lib/aarch64-linux-gnu",
                linker: "ld-linux-aarch64.so.1",
            },
            other => bail!("no software adapter is known for {other}"),
        })
    }
}

/// The launcher of a driver, fetched into `cache` if it is not there yet.
pub(crate) fn ensure(driver: &Driver, cache: &Path) -> Result<Launcher> {
    let machine = Machine::here()?;
    let words = [driver.name, driver.version, machine.debian];
    let stem = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    let root = cache.join(&stem);
    // Each time, because the children of a killed run may have gone on writing for a while.
    remove_leftovers(cache, &stem);
    if !root.exists() {
        fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let part = cache.join(format!("{stem}.{}.part", std::process::id()));
        let made = make(driver, &machine, &part, &root).and_then(|()| put_in_place(&part, &root));
        // Whatever happened, the partial folder has no further use.
        let _ = fs::remove_dir_all(&part);
        made?;
    }
    let version = fs::read_to_string(root.join("version")).unwrap_or_default();
    Ok(Launcher::script(format!("{}, {}", driver.name, version.trim()), root.join("launch")))
}

/// Makes everything in `part`, with `root` as the place where it will be.
fn make(driver: &Driver, machine: &Machine, part: &Path, root: &Path) -> Result<()> {
    let start = Instant::now();
    eprintln!("fetching {} {} from the Debian archive ...", driver.name, driver.version);
    let packages = download(driver, machine, &part.join("apt"))?;
    for package in &packages {
        match driver.of_application.filter(|_| version_of(driver.packages[0], package).is_some()) {
            Some(pattern) => unpack_some(package, pattern, part)?,
            None => unpack(package, part)?,
        }
    }
    fs::remove_dir_all(part.join("apt"))?;

    let settings = match driver.interface {
        Interface::Vulkan { folder, manifest } => vulkan(&part.join(folder), manifest, part, machine)?,
        Interface::OpenGl => opengl(machine),
    };
    let script = part.join("launch");
    fs::write(&script, script_text(root, &settings, machine.libraries, machine.linker))?;
    make_executable(&script)?;
    let package = driver.packages[0];
    let version = packages.iter().find_map(|path| version_of(package, path));
    let version = version.with_context(|| format!("no {package} in the download"))?;
    if !version.starts_with(driver.version) {
        eprintln!("note: the archive has {package} {version} now; this was tried with {}", driver.version);
    }
    fs::write(part.join("version"), version)?;
    eprintln!("... kept in {} ({:.0} s)", root.display(), start.elapsed().as_secs_f64());
    Ok(())
}

/// Unpacks a package into a folder, without installing it.
pub(crate) fn unpack(package: &Path, folder: &Path) -> Result<()> {
    let output = Command::new("dpkg-deb").arg("-x").arg(package).arg(folder).output();
    succeeded("dpkg-deb", output).map(drop)
}

/// Unpacks the files of a package that a pattern of tar's names.
fn unpack_some(package: &Path, pattern: &str, into: &Path) -> Result<()> {
    let mut tool = Command::new("dpkg-deb");
    let mut archive = tool.arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(into)
        .args(["-x", "--wildcards", pattern])
        .stdin(archive.stdout.take().context("a pipe")?);
    let output = tar.output();
    ensure!(archive.wait()?.success(), "dpkg-deb failed on {}", package.display());
    succeeded("tar", output).map(drop)
}

/// Puts the driver's manifest and library where they are looked for, and removes the other drivers, half of the size.
fn vulkan(
    from: &Path,
    manifest: &str,
    part: &Path,
    machine: &Machine,
) -> Result<Vec<(&'static str, String)>> {
    let text = fs::read_to_string(from.join(manifest));
    let (text, library) =
        with_relative_library(&text.with_context(|| format!("no {manifest} in the package"))?, machine)?;
    let (drivers, libraries) = (part.join(MANIFESTS), part.join(machine.libraries));
    if from != drivers {
        fs::create_dir_all(&drivers)?;
        fs::rename(from.join(&library), libraries.join(&library))
            .with_context(|| format!("no {library} in the package"))?;
        // The rest of the application.
        fs::remove_dir_all(from)?;
    }
    ensure!(libraries.join(&library).is_file(), "no {library} in the packages");
    fs::write(drivers.join(manifest), text)?;
    remove_other_drivers(&libraries, &library)?;
    Ok(vec![("VK_DRIVER_FILES", format!("$root/{MANIFESTS}/{manifest}"))])
}

/// What makes EGL open Mesa's driver on the CPU, without a display.
fn opengl(machine: &Machine) -> Vec<(&'static str, String)> {
    vec![
        ("__EGL_VENDOR_LIBRARY_FILENAMES", "$root/usr/share/glvnd/egl_vendor.d/50_mesa.json".into()),
        ("LIBGL_DRIVERS_PATH", format!("$root/{}/dri", machine.libraries)),
        ("LIBGL_ALWAYS_SOFTWARE", "1".into()),
        ("EGL_PLATFORM", "surfaceless".into()),
        ("WGPU_BACKEND", "gl".into()),
    ]
}

/// Gives the finished folder its name, unless another process was faster.
pub(crate) fn put_in_place(part: &Path, root: &Path) -> Result<()> {
    match fs::rename(part, root) {
        Err(error) if !root.exists() => {
            Err(error).with_context(|| format!("cannot create {}", root.display()))
        }
        _ => Ok(()),
    }
}

/// Removes what killed runs left: partial folders whose process is gone.
pub(crate) fn remove_leftovers(cache: &Path, stem: &str) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(process) = partial_owner(&name, stem) {
            if !Path::new("/proc").join(process).exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The process that a partial folder belongs to.
fn partial_owner<'a>(name: &'a str, stem: &str) -> Option<&'a str> {
    name.strip_prefix(stem)?.strip_prefix('.')?.strip_suffix(".part")
}

/// Downloads the driver, the Vulkan loader and all that they need; the paths of the packages.
fn download(driver: &Driver, machine: &Machine, apt: &Path) -> Result<Vec<PathBuf>> {
    let suites = if driver.suite == BASE_SUITE { vec![BASE_SUITE] } else { vec![BASE_SUITE, driver.suite] };
    from_archive(&suites, machine, apt, || install(driver, apt))
}

/// Downloads these packages of a release of Debian, and nothing that they depend on; their paths.
pub(crate) fn packages(suite: &str, names: &[&str], machine: &Machine, apt: &Path) -> Result<Vec<PathBuf>> {
    from_archive(&[suite], machine, apt, || {
        let mut command = apt_get(apt);
        command.current_dir(apt.join("cache/archives")).args(["download", "--target-release", suite]);
        succeeded("apt-get download", command.args(names).output())?;
        downloaded(apt)
    })
}

/// Reads the lists of packages of these releases, from the first archive that has them, and takes from there.
fn from_archive<T>(
    suites: &[&str],
    machine: &Machine,
    apt: &Path,
    take: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let keyring = KEYRINGS.iter().find(|path| Path::new(path).exists());
    let keyring =
        keyring.context("the keys of the Debian archive are missing (package debian-archive-keyring)")?;
    for folder in ["lists/partial", "cache/archives/partial", "etc"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    // An empty status file: nothing counts as installed, so that everything needed is downloaded.
    fs::write(apt.join("status"), "")?;
    // The system's hooks refresh the system's caches: not our business.
    let hooks = ["Pre-Invoke", "Post-Invoke", "Post-Invoke-Success"];
    let cleared: String = hooks.iter().map(|hook| format!("#clear APT::Update::{hook};\n")).collect();
    fs::write(apt.join("apt.conf"), cleared)?;
    let mut failures = String::new();
    for archive in archives()? {
        fs::write(apt.join("sources.list"), sources(&archive, suites, machine.debian, keyring))?;
        match succeeded("apt-get update", apt_get(apt).args(["update", "--error-on=any"]).output()) {
            Ok(_) => return take(),
            Err(error) => failures += &format!("{archive}: {error:#}. "),
        }
    }
    bail!(
        "this machine's apt knows no Debian archive that has {}: {}",
        suites.join(" and "),
        failures.trim_end()
    )
}

/// Downloads the packages from the archive that the lists were read from.
fn install(driver: &Driver, apt: &Path) -> Result<Vec<PathBuf>> {
    let (alone, with_dependencies) = driver.packages.split_at(usize::from(driver.of_application.is_some()));
    let mut command = apt_get(apt);
    command.args(["install", "--yes", "--download-only", "--target-release", driver.suite]);
    succeeded("apt-get install", command.args(with_dependencies).output())?;
    if !alone.is_empty() {
        let mut command = apt_get(apt);
        command.current_dir(apt.join("cache/archives")).args(["download", "--target-release", driver.suite]);
        succeeded("apt-get download", command.args(alone).output())?;
    }
    downloaded(apt)
}

/// The packages that apt downloaded.
fn downloaded(apt: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(apt.join("cache/archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    Ok(packages)
}

/// apt with lists, status and cache of its own, and the machine's settings for the network.
pub(crate) fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C").arg("--quiet").arg("--config-file").arg(apt.join("apt.conf"));
    let folders = [
        ("Dir::Etc::SourceList", "sources.list"),
        ("Dir::Etc::Preferences", "etc/preferences"),
        ("Dir::Etc::PreferencesParts", "etc/preferences.d"),
        ("Dir::State::Lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::State::extended_states", "extended_states"),
        ("Dir::Cache", "cache"),
        ("Dir::Log", "log"),
    ];
    for (name, below) in folders {
        command.arg("-o").arg(format!("{name}={}", apt.join(below).display()));
    }
    let settings = [
        "Dir::Etc::SourceParts=-",
        "APT::Install-Recommends=0",
        "APT::Default-Release=",
        // As root apt would work as another user, who cannot write here.
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
        "Acquire::Retries=2",
        "Acquire::http::Timeout=30",
        "Acquire::https::Timeout=30",
    ];
    for setting in settings {
        command.args(["-o", setting]);
    }
    command
}

/// The lines of a sources.list.
fn sources(archive: &str, suites: &[&str], architecture: &str, keyring: &str) -> String {
    let line = |suite: &&str| {
        format!("deb [arch={architecture} target=Packages signed-by={keyring}] {archive} {suite} main\n")
    };
    suites.iter().map(line).collect()
}

/// The Debian archives that this machine's apt is configured for.
fn archives() -> Result<Vec<String>> {
    // Printed from the configuration alone: it works without root and before any `apt-get update`.
    let output = Command::new("apt-get").env("LC_ALL", "C").args(["--print-uris", "update"]).output();
    let found = debian_archives(&succeeded("apt-get", output)?);
    ensure!(!found.is_empty(), "this machine's apt has no Debian archive among its sources");
    Ok(found)
}

/// The Debian archives in apt's listing of index files: `'ARCHIVE/dists/SUITE/...' name size`.
fn debian_archives(listing: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in listing.lines() {
        let Some((archive, rest)) = line.strip_prefix('\'').and_then(|line| line.split_once("/dists/"))
        else {
            continue;
        };
        let suite = rest.split('/').next().unwrap_or_default();
        if DEBIAN_SUITES.contains(&suite) && !found.iter().any(|known| known == archive) {
            found.push(archive.to_string());
        }
    }
    found
}

/// The version in a package's file name, if it is that package.
fn version_of(package: &str, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_prefix(package)?.strip_prefix('_')?;
    Some(name.split('_').next()?.replace("%3a", ":"))
}

/// The manifest with its library given relative to itself, wherever the folder is, and the library's file name.
///
/// Packages name the library by its bare name or by the path it would be installed at.
fn with_relative_library(text: &str, machine: &Machine) -> Result<(String, String)> {
    let malformed = || anyhow!("a driver's manifest without library_path");
    let after_key = text.find("\"library_path\"").ok_or_else(malformed)? + "\"library_path\"".len();
    let start = after_key + text[after_key..].find('"').ok_or_else(malformed)? + 1;
    let end = start + text[start..].find('"').ok_or_else(malformed)?;
    let library = text[start..end].rsplit('/').next().unwrap_or_default().to_string();
    let folder = machine.libraries.rsplit('/').next().unwrap_or_default();
    Ok((format!("{}../../../lib/{folder}/{library}{}", &text[..start], &text[end..]), library))
}

/// Removes the package's drivers for other hardware.
fn remove_other_drivers(libraries: &Path, wanted: &str) -> Result<()> {
    for entry in fs::read_dir(libraries)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("libvulkan_") && name != wanted {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What a tool printed, or an error with the first warning or error that it complained with.
pub(crate) fn succeeded(tool: &str, output: std::io::Result<std::process::Output>) -> Result<String> {
    let output = output.with_context(|| format!("{tool} cannot be run (this needs a Debian system)"))?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = complaint.lines().find(|line| line.starts_with("E: ") || line.starts_with("W: "));
    let message = first.or_else(|| complaint.lines().last()).unwrap_or("no message");
    ensure!(output.status.success(), "{tool} failed: {message}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Lets the file be run.
#[cfg(unix)]
pub(crate) fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Lets the file be run: nothing to do, and nothing is fetched here.
#[cfg(not(unix))]
pub(crate) fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine =
        Machine { debian: "amd64", libraries: "usr/lib/x86_64-linux-gnu", linker: "ld.so" };

    #[test]
    fn debian_archives_are_told_from_others() {
        let listing = "Reading package lists...\n\
            'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_x 0 \n\
            'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0\n\
            'http://mirror.example/debian/dists/bookworm-updates/InRelease' x 0\n\
            'http://mirror.example/debian-security/dists/bookworm-security/InRelease' x 0\n\
            'mirror+file:/etc/apt/mirrors/debian.list/dists/trixie/InRelease' x 0\n\
            'https://tools.example/apt/dists/nodistro/InRelease' x 0\n";
        assert_eq!(
            debian_archives(listing),
            ["http://mirror.example/debian", "mirror+file:/etc/apt/mirrors/debian.list"]
        );
    }

    #[test]
    fn sources_name_archive_suite_and_key() {
        let text = sources("http://m.example/debian", &["a", "b"], "amd64", "/k.gpg");
        let line = "deb [arch=amd64 target=Packages signed-by=/k.gpg] http://m.example/debian";
        assert_eq!(text, format!("{line} a main\n{line} b main\n"));
    }

    #[test]
    fn manifests_find_their_library_from_any_folder() {
        for path in ["libvulkan_lvp.so", "/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so"] {
            let text = format!("{{\"ICD\": {{\"library_path\": \"{path}\", \"api_version\": \"1.4\"}}}}");
            let (text, library) = with_relative_library(&text, &MACHINE).unwrap();
            let relative = "../../../lib/x86_64-linux-gnu/libvulkan_lvp.so";
            assert_eq!(library, "libvulkan_lvp.so");
            assert_eq!(
                text,
                format!("{{\"ICD\": {{\"library_path\": \"{relative}\", \"api_version\": \"1.4\"}}}}")
            );
        }
        assert!(with_relative_library("{}", &MACHINE).is_err());
    }

    #[test]
    fn the_version_comes_from_the_package_name() {
        let version = |path: &str| version_of("mesa-vulkan-drivers", Path::new(path));
        let found = version("/a/mesa-vulkan-drivers_26.1.6-1~bpo13+1_amd64.deb");
        assert_eq!(found.as_deref(), Some("26.1.6-1~bpo13+1"));
        assert_eq!(version("/a/libc6_2.41_amd64.deb"), None);
    }

    #[test]
    fn partial_folders_name_their_process() {
        assert_eq!(partial_owner("lavapipe-26.1-amd64.123.part", "lavapipe-26.1-amd64"), Some("123"));
        assert_eq!(partial_owner("lavapipe-26.1-amd64", "lavapipe-26.1-amd64"), None);
        assert_eq!(partial_owner("radv-25.0-amd64.1.part", "lavapipe-26.1-amd64"), None);
    }

    #[test]
    fn a_failing_tool_is_named_with_its_complaint() {
        let error = succeeded(
            "false",
            Command::new("sh").args(["-c", "echo 'E: no space' >&2; echo bye >&2; exit 1"]).output(),
        );
        assert_eq!(error.unwrap_err().to_string(), "false failed: E: no space");
        let error = succeeded("absent-tool", Command::new("absent-tool").output()).unwrap_err();
        assert!(error.to_string().starts_with("absent-tool cannot be run"));
    }
}

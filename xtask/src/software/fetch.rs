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

use anyhow::{Context, Result, ensure};

use super::apt::{self, apt_get, downloaded, succeeded};
use super::launcher::{Launcher, write_script};
use super::manifest::with_relative_library;
use super::{BASE_SUITE, Driver, Interface, MANIFESTS, Machine, shims};

/// The launcher of a driver, fetched into `cache` if it is not there yet.
pub(crate) fn ensure(driver: &Driver, cache: &Path) -> Result<Launcher> {
    let machine = Machine::here()?;
    let stem = driver.stem(&machine);
    let root = in_cache(cache, &stem, |part, root| make(driver, &machine, part, root))?;
    let version = fs::read_to_string(root.join("version")).unwrap_or_default();
    Ok(Launcher::script(format!("{}, {}", driver.name, version.trim()), root.join("launch")))
}

/// The folder of this name in the cache. Where it is not there yet, it is made in a folder beside it: `make` takes that one, and the
/// one that it will be.
pub(crate) fn in_cache(
    cache: &Path,
    stem: &str,
    make: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let root = cache.join(stem);
    // Each time, because the children of a killed run may have gone on writing for a while.
    remove_leftovers(cache, stem);
    if !root.exists() {
        fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let part = cache.join(format!("{stem}.{}.part", std::process::id()));
        let made = make(&part, &root).and_then(|()| put_in_place(&part, &root));
        // Whatever happened, the partial folder has no further use.
        let _ = fs::remove_dir_all(&part);
        made?;
    }
    Ok(root)
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

    match driver.interface {
        Interface::Vulkan { folder, manifest } => {
            let settings = vulkan(&part.join(folder), manifest, part, machine)?;
            write_script(&part.join("launch"), root, &settings, "", machine)?;
        }
        Interface::OpenGl => write_script(&part.join("launch"), root, &opengl(machine), "", machine)?,
        Interface::Shims => shims::write_scripts(part, root, machine)?,
    }
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
    apt::from_archive(&suites, machine, apt, || install(driver, apt))
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

/// The version in a package's file name, if it is that package.
pub(super) fn version_of(package: &str, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_prefix(package)?.strip_prefix('_')?;
    Some(name.split('_').next()?.replace("%3a", ":"))
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

#[cfg(test)]
mod tests {
    use super::*;

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
}

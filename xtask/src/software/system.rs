//! Does this machine have a Vulkan driver?
//!
//! Two things are needed: the loader library, and a driver's manifest (a JSON file that names its library) in one
//! of the folders that the loader looks in, or named by an environment variable.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Manifests that replace those in the folders.
const INSTEAD: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

/// Manifests besides those in the folders.
const BESIDES: &str = "VK_ADD_DRIVER_FILES";

/// The Vulkan loader, by the name that wgpu opens it with.
const LOADER: &str = "libvulkan.so.1";

/// What serves as this machine's driver, or what is missing for one.
pub(crate) fn driver() -> Result<String, String> {
    if !cfg!(target_os = "linux") {
        return Ok("the system's own graphics driver".into());
    }
    let manifest = match INSTEAD.iter().find_map(|name| Some((name, named(name)?))) {
        Some((name, files)) => files.into_iter().next().ok_or(format!("{name} names no file that exists"))?,
        None => named(BESIDES)
            .into_iter()
            .flatten()
            .chain(manifests(&manifest_folders()))
            .next()
            .ok_or("this machine has no Vulkan driver (no manifest in vulkan/icd.d)")?,
    };
    if !loader_is_there() {
        return Err(format!("this machine has no Vulkan loader ({LOADER})"));
    }
    Ok(format!("the system's Vulkan drivers ({} ...)", manifest.display()))
}

/// The existing files that an environment variable lists; none where it is not set.
fn named(variable: &str) -> Option<Vec<PathBuf>> {
    let list = env::var_os(variable).filter(|list| !list.is_empty())?;
    Some(env::split_paths(&list).filter(|path| path.is_file()).collect())
}

/// The folders that the loader searches for manifests, in its order.
fn manifest_folders() -> Vec<PathBuf> {
    let list = |name: &str, default: &str| {
        let value = env::var_os(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.into());
        env::split_paths(&value).collect::<Vec<_>>()
    };
    let home =
        |below: &str| env::var_os("HOME").map_or_else(PathBuf::new, |home| Path::new(&home).join(below));
    let config = home(".config");
    let data = home(".local/share");
    let mut bases = list("XDG_CONFIG_HOME", &config.to_string_lossy());
    bases.extend(list("XDG_CONFIG_DIRS", "/etc/xdg"));
    bases.extend(["/etc", "/usr/local/etc"].map(PathBuf::from));
    bases.extend(list("XDG_DATA_HOME", &data.to_string_lossy()));
    bases.extend(list("XDG_DATA_DIRS", "/usr/local/share:/usr/share"));
    // NixOS keeps its drivers here, and its loader knows.
    bases.push("/run/opengl-driver/share".into());
    bases.iter().map(|base| base.join("vulkan/icd.d")).collect()
}

/// The manifests in these folders.
fn manifests(folders: &[PathBuf]) -> Vec<PathBuf> {
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json")).collect()
}

/// Whether a program will find the loader: in the linker's cache, or in a folder that is searched anyway.
fn loader_is_there() -> bool {
    // `ldconfig` is in /sbin, which is not on every user's path.
    let listings = ["ldconfig", "/sbin/ldconfig"].map(|tool| Command::new(tool).arg("-p").output());
    if listings.iter().flatten().any(|output| lists_loader(&String::from_utf8_lossy(&output.stdout))) {
        return true;
    }
    let arch = env::consts::ARCH;
    let usual = [
        "/lib".into(),
        "/usr/lib".into(),
        "/lib64".into(),
        "/usr/lib64".into(),
        "/usr/local/lib".into(),
        format!("/usr/lib/{arch}-linux-gnu"),
        "/run/opengl-driver/lib".into(),
    ];
    let named = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    env::split_paths(&named).chain(usual.map(PathBuf::from)).any(|folder| folder.join(LOADER).exists())
}

/// Whether a listing of `ldconfig -p` has the loader.
fn lists_loader(listing: &str) -> bool {
    listing.lines().any(|line| line.split_whitespace().next() == Some(LOADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_found_by_its_exact_name() {
        assert!(lists_loader(
            "2 libs\n\tlibvulkan.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libvulkan.so.1\n"
        ));
        assert!(!lists_loader(
            "\tlibvulkan.so.10 (libc6) => /lib/libvulkan.so.10\n\tlibm.so.6 => libvulkan.so.1\n"
        ));
    }

    #[test]
    fn only_json_files_are_manifests() {
        let folder = env::temp_dir().join(format!("xtask-manifests-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("readme.txt"), "").unwrap();
        assert!(manifests(std::slice::from_ref(&folder)).is_empty());
        std::fs::write(folder.join("a_icd.json"), "").unwrap();
        assert_eq!(manifests(&[folder.join("absent"), folder.clone()]), [folder.join("a_icd.json")]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

//! Drivers for GPUs that are not there.
//!
//! Mesa builds, for its own tests, libraries that answer for the kernel's drivers: one in front of the system's makes a driver
//! believe that its GPU is there, compile for it, and run nothing. Debian has them for all vendors but Intel.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::launcher::write_script;
use super::manifest::with_relative_library;
use super::{MANIFESTS, Machine};

/// Drivers by the names of their manifests, with the names of what stands in for the kernel's.
const DRIVERS: [(&str, &str); 4] =
    [("asahi", "asahi"), ("freedreno", "freedreno"), ("nouveau", "nouveau"), ("radeon", "amdgpu")];

/// Intel's driver, whose stand-in is built.
pub(super) const INTEL: &str = "intel";

/// The name of a driver's script.
pub(super) fn script_of(name: &str) -> String {
    format!("launch-{name}")
}

/// What makes the Vulkan loader open a driver.
pub(super) fn settings(name: &str) -> Vec<(&'static str, String)> {
    vec![("VK_DRIVER_FILES", format!("$root/{MANIFESTS}/{name}_icd.json"))]
}

/// Makes the manifests find their libraries, removes the drivers that are of no use here, and writes a script per driver.
pub(super) fn write_scripts(part: &Path, root: &Path, machine: &Machine) -> Result<()> {
    let libraries = part.join(machine.libraries);
    let mut wanted = Vec::new();
    for name in names().chain([INTEL]) {
        let manifest = part.join(MANIFESTS).join(format!("{name}_icd.json"));
        let text =
            fs::read_to_string(&manifest).with_context(|| format!("no manifest of {name} in the package"))?;
        let (text, library) = with_relative_library(&text, machine)?;
        fs::write(manifest, text)?;
        wanted.push(library);
    }
    for entry in fs::read_dir(&libraries)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("libvulkan_") && !wanted.contains(&name) {
            fs::remove_file(path)?;
        }
    }
    for (name, shim) in DRIVERS {
        let library = format!("{}/lib{shim}_noop_drm_shim.so", machine.libraries);
        ensure!(part.join(&library).is_file(), "no {library} in the package");
        let options = format!("--preload \"$root/{library}\" ");
        write_script(&part.join(script_of(name)), root, &settings(name), &options, machine)?;
    }
    Ok(())
}

/// The drivers' names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    DRIVERS.iter().map(|(name, _)| *name)
}

//! Vulkan's validation layer, which looks at what a program tells a driver and at what its shaders do. It lies in the cache beside the
//! software adapter, whose libraries it needs, and is switched on for one command by the environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::apt::packages;
use super::fetch::{in_cache, unpack, version_of};
use super::manifest::with_relative_library;
use super::{BASE_SUITE, Machine, cache_folder};

/// The package that has it.
const PACKAGE: &str = "vulkan-validationlayers";

/// Where the package puts its manifest.
const MANIFEST: &str = "usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json";

/// The layer in a release of Debian.
pub(crate) struct Layer {
    suite: &'static str,
    /// The version that this was tried with: another one is used too, with a note.
    version: &'static str,
}

/// The last that looks for accesses outside of buffers which the device keeps inside, as wgpu asks it to.
pub(crate) const OF_TRIXIE: Layer = Layer { suite: BASE_SUITE, version: "1.4.309" };

/// Looks for data races in workgroup memory. The package needs no newer C library than the adapter's.
pub(crate) const OF_FORKY: Layer = Layer { suite: "forky", version: "1.4.363" };

impl Layer {
    /// The folder that it is unpacked in, fetched at first use.
    pub(crate) fn fetch(&self) -> Result<PathBuf> {
        ensure!(cfg!(target_os = "linux"), "the layer is fetched for Linux alone");
        let machine = Machine::here()?;
        let stem = format!("validation-{}-{}", self.version, machine.debian);
        in_cache(&cache_folder()?, &stem, |part, _| self.make(&machine, part))
    }

    /// Unpacks it into a folder.
    fn make(&self, machine: &Machine, part: &Path) -> Result<()> {
        eprintln!("fetching Vulkan's validation layer {} from the Debian archive ...", self.version);
        let apt = part.join("apt");
        for package in packages(self.suite, &[PACKAGE], machine, &apt)? {
            unpack(&package, part)?;
            let version = version_of(PACKAGE, &package).unwrap_or_default();
            if !version.starts_with(self.version) {
                eprintln!(
                    "note: {} has the layer {version} now; this was tried with {}",
                    self.suite, self.version
                );
            }
        }
        fs::remove_dir_all(apt)?;
        let manifest = part.join(MANIFEST);
        let text = fs::read_to_string(&manifest).with_context(|| format!("no {MANIFEST} in {PACKAGE}"))?;
        Ok(fs::write(manifest, with_relative_library(&text, machine)?.0)?)
    }
}

/// Switches on the layer unpacked at `root`, with a file of its settings, for one command.
pub(crate) fn switch_on(command: &mut Command, root: &Path, settings: &Path) {
    command.env("VK_LAYER_PATH", root.join(MANIFEST).with_file_name(""));
    command.env("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation");
    command.env("VK_LAYER_SETTINGS_PATH", settings);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_leads_to_the_layer_and_its_settings() {
        let mut command = Command::new("program");
        switch_on(&mut command, Path::new("/c"), Path::new("/t/settings.txt"));
        let set: Vec<_> =
            command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?))).collect();
        assert!(
            set.contains(&("VK_LAYER_PATH", "/c/usr/share/vulkan/explicit_layer.d/".as_ref())),
            "{set:?}"
        );
        assert!(set.contains(&("VK_LAYER_SETTINGS_PATH", "/t/settings.txt".as_ref())), "{set:?}");
    }
}

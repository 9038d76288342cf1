//! Software adapters: drivers for a machine that has none, and more of them to compare.
//!
//! The kernels need a Vulkan, Metal or DirectX driver. A fresh Linux machine without a GPU has none, so the
//! developer commands fetch one, without root and into a cache folder, and run programs on it through a
//! [`Launcher`]. Nothing outside that folder changes.
//!
//! - [`system`]: is there a driver already?
//! - [`apt`]: the Debian archive that this machine itself is configured for;
//! - [`fetch`]: the packages, unpacked into the cache;
//! - [`mod@launcher`]: what it takes to run a program on the fetched driver;
//! - [`layers`]: what looks at the calls of a program and at its shaders, between it and the driver;
//! - [`mod@compilers`]: drivers for GPUs that are not there, which compile and run nothing ([`shims`]); [`intel`] builds what Debian
//!   lacks for one of them.

pub(crate) mod apt;
pub(crate) mod compilers;
pub(crate) mod fetch;
mod intel;
mod launcher;
pub(crate) mod layers;
mod machine;
mod manifest;
mod shims;
mod system;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};

pub(crate) use launcher::{Launcher, make_executable};
pub(crate) use machine::Machine;

/// What to do where no adapter can be had; ends every error of this module that a person can act on.
const REMEDY: &str = "install a Vulkan driver (the package mesa-vulkan-drivers, vulkan-swrast or lavapipe of your \
                      distribution, and libvulkan1 or vulkan-loader), or set VK_DRIVER_FILES to a driver's manifest";

/// A driver in a release of Debian.
pub(crate) struct Driver {
    /// Names the cache folder.
    name: &'static str,
    /// Release that the driver's package comes from; its dependencies come from [`BASE_SUITE`].
    suite: &'static str,
    /// Version that this was tried with: another one is used too, with a note. Empty where any will do.
    version: &'static str,
    /// Packages, the one with the driver first.
    packages: &'static [&'static str],
    /// The first package is an application that brings a driver along: only these of its files are wanted (a pattern of
    /// tar's), and nothing that it depends on.
    of_application: Option<&'static str>,
    /// What programs open it through.
    interface: Interface,
}

impl Driver {
    /// Its folder in the cache.
    fn stem(&self, machine: &Machine) -> String {
        let words = [self.name, self.version, machine.debian];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    }
}

/// What programs open a driver through.
enum Interface {
    /// The Vulkan loader.
    Vulkan {
        /// The folder with the driver's manifest.
        folder: &'static str,
        /// The manifest's name.
        manifest: &'static str,
    },
    /// EGL without a display.
    OpenGl,
    /// The Vulkan loader, with a library in front of the system's that stands in for the kernel's driver: a script per driver.
    Shims,
}

/// Where packages put the manifests of Vulkan drivers.
const MANIFESTS: &str = "usr/share/vulkan/icd.d";

/// Debian release that the drivers' dependencies come from, the C library among them.
const BASE_SUITE: &str = "trixie";

/// Mesa's Vulkan drivers and the Vulkan loader.
const VULKAN: &[&str] = &["mesa-vulkan-drivers", "libvulkan1"];

/// Runs everything, quickly: the adapter of the tests where there is no GPU.
pub(crate) const LAVAPIPE: Driver = Driver {
    name: "lavapipe",
    suite: "trixie-backports",
    version: "26.1",
    packages: VULKAN,
    of_application: None,
    interface: Interface::Vulkan { folder: MANIFESTS, manifest: "lvp_icd.json" },
};

/// The one before: an independent compiler version.
pub(crate) const LAVAPIPE_25: Driver = Driver { suite: "trixie", version: "25.0", ..LAVAPIPE };

/// Compiles for GPUs that are not there, and runs nothing.
pub(crate) const SHIMS: Driver = Driver {
    name: "mesa-shims",
    packages: &["mesa-vulkan-drivers", "mesa-drm-shim", "libvulkan1"],
    interface: Interface::Shims,
    ..LAVAPIPE
};

/// Google's Vulkan on the CPU, which comes with the browser.
pub(crate) const SWIFTSHADER: Driver = Driver {
    name: "swiftshader",
    suite: BASE_SUITE,
    version: "",
    packages: &["chromium-common", "libvulkan1", "libstdc++6"],
    of_application: Some("./usr/lib/chromium/*vk_swiftshader*"),
    interface: Interface::Vulkan { folder: "usr/lib/chromium", manifest: "vk_swiftshader_icd.json" },
};

/// Mesa's OpenGL on the CPU.
pub(crate) const LLVMPIPE_GL: Driver = Driver {
    name: "llvmpipe-gl",
    packages: &["libgl1-mesa-dri", "libegl-mesa0", "libegl1", "libgles2"],
    interface: Interface::OpenGl,
    ..LAVAPIPE
};

/// Which adapter a command runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Choice {
    /// The machine's driver where there is one, else the software adapter.
    #[default]
    Auto,
    /// The software adapter, even where the machine has a driver.
    Software,
    /// The machine's driver, or an error.
    System,
}

impl Choice {
    /// As it is read from text.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Software => "software",
            Self::System => "system",
        }
    }
}

impl std::str::FromStr for Choice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "auto" => Self::Auto,
            "software" => Self::Software,
            "system" => Self::System,
            _ => bail!("unknown adapter `{text}`: use auto, software or system"),
        })
    }
}

/// The launcher for programs on the chosen adapter; fetches the software adapter at first use.
pub(crate) fn launcher(choice: Choice) -> Result<Launcher> {
    let found = system::driver();
    match (choice, found) {
        (Choice::Auto | Choice::System, Ok(what)) => Ok(Launcher::system(what)),
        (Choice::System, Err(missing)) => bail!("{missing}; {REMEDY}"),
        (Choice::Auto, Err(missing)) => {
            fetched(&LAVAPIPE).with_context(|| format!("no adapter: {missing}, and none could be fetched"))
        }
        (Choice::Software, _) => fetched(&LAVAPIPE),
    }
}

/// The launcher for programs on a fetched driver.
pub(crate) fn fetched(driver: &Driver) -> Result<Launcher> {
    if !cfg!(target_os = "linux") {
        bail!("the software adapter is for Linux: elsewhere the system's own driver is used");
    }
    fetch::ensure(driver, &cache_folder()?).map_err(|cause| anyhow!("{cause:#}; {REMEDY}"))
}

/// Where fetched drivers and packages are kept: outside of the build tree, so that `cargo clean` leaves them alone.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("WGPU_ATTENTION_CACHE")
        .or_else(|| set("XDG_CACHE_HOME"))
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .context("no cache folder: set WGPU_ATTENTION_CACHE or HOME")?;
    Ok(std::path::absolute(base)?.join("wgpu-attention"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_from_text() {
        for choice in [Choice::Auto, Choice::Software, Choice::System] {
            assert_eq!(choice.word().parse::<Choice>().unwrap(), choice);
        }
        assert!("gpu".parse::<Choice>().unwrap_err().to_string().contains("`gpu`"));
    }
}

//! Manifests of Vulkan drivers, which name their libraries.

use anyhow::{Result, anyhow};

use super::Machine;

/// The manifest with its library given relative to itself, wherever the folder is, and the library's file name.
///
/// Packages name the library by its bare name or by the path it would be installed at.
pub(crate) fn with_relative_library(text: &str, machine: &Machine) -> Result<(String, String)> {
    let malformed = || anyhow!("a driver's manifest without library_path");
    let after_key = text.find("\"library_path\"").ok_or_else(malformed)? + "\"library_path\"".len();
    let start = after_key + text[after_key..].find('"').ok_or_else(malformed)? + 1;
    let end = start + text[start..].find('"').ok_or_else(malformed)?;
    let library = text[start..end].rsplit('/').next().unwrap_or_default().to_string();
    let folder = machine.libraries.rsplit('/').next().unwrap_or_default();
    Ok((format!("{}../../../lib/{folder}/{library}{}", &text[..start], &text[end..]), library))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine =
        Machine { debian: "amd64", libraries: "usr/lib/x86_64-linux-gnu", linker: "ld.so" };

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
}

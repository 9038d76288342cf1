//! The page as one file: styles, scripts and the compiled crate stand in it, so that it can be opened from a disk, sent to
//! someone, or put on any server, and loads nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use wasm_bindgen_cli_support::Bindgen;

/// What the page's template may name.
const PARTS: [(&str, &str); 12] = [
    ("style.css", include_str!("../../../web/page/style.css")),
    ("state.js", include_str!("../../../web/page/state.js")),
    ("format.js", include_str!("../../../web/page/format.js")),
    ("plots.js", include_str!("../../../web/page/plots.js")),
    ("tabs.js", include_str!("../../../web/page/tabs.js")),
    ("choice.js", include_str!("../../../web/page/choice.js")),
    ("mask.js", include_str!("../../../web/page/mask.js")),
    ("patterns.js", include_str!("../../../web/page/patterns.js")),
    ("run.js", include_str!("../../../web/page/run.js")),
    ("bench.js", include_str!("../../../web/page/bench.js")),
    ("page.js", include_str!("../../../web/page/page.js")),
    ("worker.js", include_str!("../../../web/page/worker.js")),
];
const TEMPLATE: &str = include_str!("../../../web/page/index.html");

/// Writes the page for a compiled crate.
pub(crate) fn write(wasm: &Path, file: &Path) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(wasm).typescript(false).remove_name_section(true).remove_producers_section(true);
    let mut output = bindgen.no_modules(true)?.generate_output()?;
    let (glue, wasm) = (output.js().to_owned(), BASE64_STANDARD.encode(output.wasm_mut().emit_wasm()));
    let page = filled(TEMPLATE, |name| match name {
        "glue.js" => Some(&glue),
        "wasm" => Some(&wasm),
        _ => PARTS.into_iter().find(|(known, _)| *known == name).map(|(_, text)| text),
    })?;
    // Never half a page under its name.
    let part = file.with_extension("part");
    fs::write(&part, &page).with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, file).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("   {} ({:.1} MB)", file.display(), 1e-6 * page.len() as f64);
    Ok(())
}

/// The template with its `{{names}}` replaced.
fn filled<'a>(template: &str, part: impl Fn(&str) -> Option<&'a str>) -> Result<String> {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").context("a `{{` without its `}}`")?;
        let Some(text) = part(name) else { bail!("the template names `{name}`, which there is not") };
        ensure!(!text.contains("</script") && !text.contains("</style"), "{name} ends its own element");
        page += before;
        page += text;
        rest = after;
    }
    Ok(page + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_once() {
        let part = |name: &str| (name == "a").then_some("{{b}}");
        assert_eq!(filled("x{{a}}y{{a}}z", part).unwrap(), "x{{b}}y{{b}}z");
        assert!(filled("{{c}}", part).unwrap_err().to_string().contains("`c`"));
        assert!(filled("{{a", part).is_err());
        assert!(filled("{{a}}", |_| Some("</script>")).unwrap_err().to_string().contains("ends its own"));
    }

    #[test]
    fn the_template_names_every_part_and_nothing_from_elsewhere() {
        for (name, text) in PARTS {
            assert!(TEMPLATE.contains(&format!("{{{{{name}}}}}")), "{name} is not in the template");
            // The name space of SVG is no address that anything is loaded from.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http:") && !text.contains("https:"), "{name} names an address");
        }
        assert!(!TEMPLATE.contains("http:") && !TEMPLATE.contains("https:"));
    }
}

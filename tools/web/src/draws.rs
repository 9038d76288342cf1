//! The page's test: the tab that draws patterns.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::devtools::Browser;
use crate::screen::{DESKTOP, DRAWN, NARROW, drawn, fact, fits, quiet, save, set, words};

/// Where the parts of the page are, that nothing should move while a slider does.
const TOPS: &str = "['#picture', '#pointed', '#cost', '#made', '#parts-here', '#refused']\
    .map(it => document.querySelector(it).getBoundingClientRect().top)";

/// Every pattern, a link, bad numbers, the keyboard, and how it looks.
pub(crate) fn walk(browser: &mut Browser, url: &str, folder: &Path) -> Result<()> {
    browser.open(url, DESKTOP, false)?;
    drawn(browser)?;
    every_pattern(browser, folder)?;
    sliders(browser)?;
    picture(browser, url)?;
    keyboard(browser)?;
    link(browser, url, folder)?;
    refusals(browser, url)?;
    looks(browser, url, folder)?;
    quiet(browser)
}

/// Each pattern of the list has a picture, numbers that agree, and its line of Rust.
fn every_pattern(browser: &mut Browser, folder: &Path) -> Result<()> {
    let names = browser.value("[...document.querySelector('#pattern').options].map(it => it.value)")?;
    let names: Vec<String> = serde_json::from_value(names).context("the patterns")?;
    ensure!(names.len() > 15, "the page has the patterns {names:?}");
    for name in &names {
        set(browser, "#pattern", name)?;
        let refused = words(browser, "#refused")?;
        ensure!(refused.is_empty(), "{name}: {refused}");
        ensure!(words(browser, "#rust")?.starts_with("let pattern = "), "{name} has no line of Rust");
        let facts = browser.value("patterns.facts")?;
        let number = |name: &str| facts[name].as_u64().unwrap_or_default();
        let (kept, visited, dense) = (number("kept"), number("visited"), number("dense"));
        ensure!(
            0 < kept && kept <= visited && kept <= dense,
            "{name}: {kept} kept, {visited} visited, {dense} dense"
        );
        // The picture shows as many pairs as are counted: those of each cell, by the root of its share.
        let drawn = browser.value(
            "(() => { const {bytes, rows, columns} = mask.last; let sum = 0; \
             for (let n = 0; n < bytes.length; n += 3) sum += (bytes[n] / 255) ** 2 + (bytes[n + 1] / 255) ** 2; \
             return sum / (rows * columns); })()",
        )?;
        let (drawn, counted) = (drawn.as_f64().unwrap_or(-1.0), kept as f64 / dense as f64);
        ensure!((drawn - counted).abs() < 0.02, "{name}: {drawn} of the picture, {counted} of the pairs");
        fits(browser, DESKTOP)?;
        if ["bigbird", "document"].contains(&name.as_str()) {
            save(browser, folder, &format!("patterns-{name}.png"))?;
        }
    }
    eprintln!("   {} patterns drawn", names.len());
    Ok(())
}

/// A slider changes what is drawn at once, and nothing moves.
fn sliders(browser: &mut Browser) -> Result<()> {
    set(browser, "#pattern", "window")?;
    let before = browser.value(TOPS)?;
    let mut kept = vec![];
    for place in ["0", "300", "650", "1000"] {
        set(browser, "#inputs .field input[type=range]", place)?;
        kept.push(browser.value("patterns.facts.kept")?.as_u64().unwrap_or_default());
        ensure!(browser.value(TOPS)? == before, "the page moves while a slider does");
    }
    ensure!(kept[0] == 1024 && kept.is_sorted_by(|a, b| a < b), "the slider keeps {kept:?} pairs");
    ensure!(kept[3] == 1024 * 1025 / 2, "the whole slider is causal, not {} pairs", kept[3]);
    set(browser, "#lengths .field:first-child input[type=range]", "0")?;
    ensure!(fact(browser, 2)? == "256", "the shortest length has {} pairs", fact(browser, 2)?);
    // A link is made a moment later.
    browser.until("location.hash.includes('pattern=window') && location.hash.includes('n=16')", DRAWN)?;
    browser.value("navigator.clipboard.writeText = async (text) => { window.copied = text; }; 0")?;
    browser.click("[data-copies=rust]")?;
    let copied = browser.value("copied")?;
    ensure!(copied == "let pattern = Window { before: 1024, after: 0 };", "copied: {copied}");
    Ok(())
}

/// What is drawn, what is under the pointer, and what is in view.
fn picture(browser: &mut Browser, url: &str) -> Result<()> {
    browser.open(&format!("{url}#n=256"), DESKTOP, false)?;
    drawn(browser)?;
    let pixel = |across: f64, down: f64| {
        format!(
            "(() => {{ const it = mask.canvas; const one = new OffscreenCanvas(1, 1).getContext('2d'); \
             one.drawImage(it, -Math.floor({across} * it.width), -Math.floor({down} * it.height)); \
             const [r, g, b] = one.getImageData(0, 0, 1, 1).data; return `rgb(${{r}}, ${{g}}, ${{b}})`; }})()"
        )
    };
    for (kind, across, down) in
        [("full", 0.11, 0.9), ("skipped", 0.9, 0.11), ("partial", 0.03, 0.21), ("visited", 0.21, 0.03)]
    {
        let colour = browser
            .value(&format!("getComputedStyle(document.querySelector('.legend .{kind}')).backgroundColor"))?;
        let got = browser.value(&pixel(across, down))?;
        ensure!(got == colour, "at {across}, {down} of causal: {got}, not {kind} ({colour})");
    }
    browser.point("#mask", [0.1, 0.9])?;
    let pointed = words(browser, "#pointed")?;
    ensure!(
        pointed.contains("key 25")
            && pointed.contains("query 23")
            && pointed.ends_with("kept, in a full block"),
        "{pointed}"
    );
    let view = |browser: &mut Browser| -> Result<Vec<f64>> {
        Ok(serde_json::from_value(browser.value("mask.view")?)?)
    };
    browser.click("#closer")?;
    browser.click("#closer")?;
    ensure!(view(browser)? == [96.0, 96.0, 64.0, 64.0], "twice closer: {:?}", view(browser)?);
    browser.drag("#mask", [[0.75, 0.5], [0.25, 0.5]])?;
    let moved = view(browser)?;
    ensure!((moved[0] - 128.0).abs() < 1.0 && (moved[1] - 96.0).abs() < 1.0, "dragged: {moved:?}");
    for (key, sides) in [("+", [32.0, 32.0]), ("-", [64.0, 64.0]), ("0", [256.0, 256.0])] {
        browser.value("mask.canvas.focus()")?;
        browser.press(key)?;
        ensure!(view(browser)?[2..] == sides, "after {key}: {:?}", view(browser)?);
    }
    drawn(browser)
}

/// Tabs by arrows; what has the focus can be seen.
fn keyboard(browser: &mut Browser) -> Result<()> {
    browser.value("document.querySelector('#tab-patterns').focus()")?;
    for (key, tab) in [
        ("ArrowRight", "run"),
        ("End", "benchmark"),
        ("ArrowRight", "patterns"),
        ("ArrowLeft", "benchmark"),
        ("Home", "patterns"),
    ] {
        browser.press(key)?;
        let shown = browser.value(
            "[document.activeElement.id, ...[...document.querySelectorAll('[role=tabpanel]:not([hidden])')].map(it => it.id)]",
        )?;
        ensure!(shown == json!([format!("tab-{tab}"), tab]), "after {key}: {shown}");
        let reached = browser.value(
            "document.querySelectorAll('[role=tab][tabindex=\"0\"], [role=tab]:not([tabindex])').length",
        )?;
        ensure!(reached == 1, "{reached} tabs can be reached by Tab");
    }
    let outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")?;
    ensure!(outline == "solid", "the focus has the outline {outline}");
    Ok(())
}

/// A link has the pattern, its parameters and the theme; the button changes that.
fn link(browser: &mut Browser, url: &str, folder: &Path) -> Result<()> {
    let fragment = "pattern=strided&n=2048&stride=64&part=column&theme=dark&shown=0";
    browser.open(&format!("{url}#{fragment}"), DESKTOP, false)?;
    drawn(browser)?;
    let rust = words(browser, "#rust")?;
    ensure!(rust.contains("stride: 64, part: StridedPart::Column, causal: true"), "of a link: {rust}");
    ensure!(browser.value("document.querySelector('#shown').value")? == "0", "a link's part is not shown");
    let ground = "getComputedStyle(document.body).backgroundColor";
    let dark = browser.value(ground)?;
    save(browser, folder, "patterns-part-dark.png")?;
    browser.click("#theme")?;
    ensure!(browser.value(ground)? != dark, "the theme stays");
    browser.until("location.hash.includes('theme=light') && location.hash.includes('stride=64')", DRAWN)?;
    browser.open(&format!("{url}#pattern=helix"), DESKTOP, false)?;
    drawn(browser)?;
    let refused = words(browser, "#refused")?;
    ensure!(refused.contains("helix"), "of an unknown pattern: {refused}");
    Ok(())
}

/// What cannot be is refused in the crate's words; what was drawn stays.
fn refusals(browser: &mut Browser, url: &str) -> Result<()> {
    browser.open(&format!("{url}#pattern=window"), DESKTOP, false)?;
    drawn(browser)?;
    let kept = fact(browser, 0)?;
    let tops = browser.value(TOPS)?;
    for (field, value, need) in [
        ("#in-n", "0", "length: need a whole number from 1"),
        ("#in-n", "-3", "got -3"),
        ("#in-n", "", "got nothing"),
        ("#in-n", "99999999999", "got 99999999999"),
        ("#in-n", "4000000000", "length: need at most 1048576 for a picture"),
        ("#in-before", "-1", "window.before: need a whole number"),
        ("#in-before", "1.5", "got 1.5"),
    ] {
        set(browser, field, value)?;
        let refused = words(browser, "#refused")?;
        ensure!(refused.contains(need), "{field} = `{value}`: `{refused}`");
        ensure!(
            fact(browser, 0)? == kept && browser.value(TOPS)? == tops,
            "{field} = `{value}`: the page changes"
        );
        set(browser, field, if field == "#in-n" { "1024" } else { "127" })?;
        ensure!(words(browser, "#refused")?.is_empty(), "after {field} = `{value}` a refusal stays");
    }
    // A window past the sequence is causal.
    set(browser, "#in-before", "4294967295")?;
    ensure!(fact(browser, 0)? == "524,800", "a window past the sequence keeps {}", fact(browser, 0)?);
    Ok(())
}

/// Pictures in both widths and themes.
fn looks(browser: &mut Browser, url: &str, folder: &Path) -> Result<()> {
    browser.open(&format!("{url}#pattern=longformer&n=4096&window=256&every=512"), DESKTOP, false)?;
    for (size, width) in [(DESKTOP, "desktop"), (NARROW, "phone")] {
        for (dark, theme) in [(false, "light"), (true, "dark")] {
            browser.resize(size, dark)?;
            drawn(browser)?;
            fits(browser, size)?;
            save(browser, folder, &format!("patterns-{width}-{theme}.png"))?;
        }
    }
    let small: Value = browser.value(
        "[...document.querySelectorAll('#patterns :is(button, select), [role=tab]')]\
         .filter(it => it.getBoundingClientRect().height < 36).map(it => it.id || it.textContent)",
    )?;
    ensure!(small == json!([]), "too small for a finger: {small}");
    Ok(())
}

//! The page's test: the tab that runs a pattern.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::devtools::Browser;
use crate::screen::{DESKTOP, LONG, NARROW, fits, quiet, ready, save, set, words};

/// A pattern beside dense attention, lengths that are refused, and how it looks.
pub(crate) fn walk(browser: &mut Browser, url: &str, folder: &Path) -> Result<()> {
    ready(browser, url, "tab=run&pattern=window&n=512&before=63")?;
    let step = run(browser)?;
    ensure!(step == "Done.", "a run: {step}");
    let verdict = words(browser, "#verdict")?;
    ensure!(verdict.starts_with("Right: 256 of 512 rows, drawn at random, are"), "a run: {verdict}");
    ensure!(verdict.contains("dense attention here"), "a run beside dense attention: {verdict}");
    let cells =
        browser.value("[...document.querySelectorAll('#beside tbody td')].map(it => it.innerText)")?;
    let cells: Vec<String> = serde_json::from_value(cells).context("the table")?;
    ensure!(cells.iter().all(|cell| cell != "–" && !cell.is_empty()), "a run and dense attention: {cells:?}");
    let ran_on = words(browser, "#ran-on")?;
    let adapter = browser.value("gpu.name")?;
    let adapter = adapter.as_str().filter(|name| !name.is_empty()).context("the adapter has no name")?;
    ensure!(ran_on.contains(&format!("512 keys, 1 head of 64, f32, on {adapter}")), "{ran_on}");
    eprintln!("   {verdict}");
    save(browser, folder, "run-desktop.png")?;
    browser.resize(DESKTOP, true)?;
    save(browser, folder, "run-dark.png")?;
    browser.resize(NARROW, false)?;
    fits(browser, NARROW)?;
    save(browser, folder, "run-phone.png")?;
    browser.resize(DESKTOP, false)?;
    refusals(browser)?;
    stopped(browser)?;
    quiet(browser)
}

/// Lengths that the device does not allow, and none, in the crate's own words.
fn refusals(browser: &mut Browser) -> Result<()> {
    for (fields, need) in [
        (&[("#in-n", "4000000000")][..], "q needs 1024000000000, but max_storage_buffer_binding_size is"),
        (&[("#in-n", "99999999999")], "length: need a whole number"),
        (&[("#in-n", "0")], "length: need a whole number"),
        (&[("#in-n", "-1")], "got -1"),
        (&[("#in-n", "64"), ("#heads", "0")], "heads: need at least 1"),
        (&[("#heads", "-1")], "heads: need a whole number"),
        (
            &[("#heads", "1"), ("#pattern", "window"), ("#in-before", "-2")],
            "window.before: need a whole number",
        ),
        (&[("#pattern", "key_lengths"), ("#in-keys", "65")], "need at most kv_len (64), got 65"),
    ] {
        for (field, value) in fields {
            set(browser, field, value)?;
        }
        let step = run(browser)?;
        let verdict = words(browser, "#verdict")?;
        ensure!(step.contains(need) || verdict.contains(need), "{fields:?}: {step} {verdict}");
    }
    Ok(())
}

/// A click on Stop ends a run.
fn stopped(browser: &mut Browser) -> Result<()> {
    set(browser, "#pattern", "causal")?;
    set(browser, "#in-n", "512")?;
    browser.click("#start")?;
    browser.click("#start-stop")?;
    browser.until("gpu.runs === null", LONG)?;
    let step = words(browser, "#run-step")?;
    ensure!(step == "Stopped.", "after a stop: {step}");
    Ok(())
}

/// A planted fault is found, and is not timed.
pub(crate) fn fault(browser: &mut Browser, url: &str, folder: &Path) -> Result<()> {
    ready(browser, url, "tab=run&n=256")?;
    run(browser)?;
    save(browser, folder, "run-fault.png")?;
    let verdict = words(browser, "#verdict")?;
    ensure!(verdict.starts_with("FAILED: out of its bound"), "a planted fault: {verdict}");
    let time = words(browser, "#beside tbody tr td")?;
    ensure!(time == "–", "a planted fault is timed: {time}");
    Ok(())
}

/// Starts a run and waits for its last words.
fn run(browser: &mut Browser) -> Result<String> {
    browser.click("#start")?;
    browser
        .until("gpu.runs === null && document.querySelector('#run-step').innerText !== 'It begins.'", LONG)?;
    words(browser, "#run-step")
}

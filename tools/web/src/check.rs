//! The page's test: a person's way through its tabs, in a real browser on a real WebGPU adapter. Here the way through its benchmark.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::devtools::Browser;
use crate::screen::{DESKTOP, LONG, NARROW, drawn, fact, fits, quiet, ready, save};
use crate::{draws, runs};

/// Runs before the page: plants a fault in the shaders of `add` and of attention, in the workers that the page makes.
const FAULT: &str = r"
    const plant = () => {
        const create = GPUDevice.prototype.createShaderModule;
        GPUDevice.prototype.createShaderModule = function (it) {
            return create.call(this, {
                ...it,
                code: it.code.replace('y += other;', 'y -= 1.5 * other;').replace('new_l = sums(p);', 'new_l = 1.5 * sums(p);'),
            });
        };
    };
    const Whole = Blob;
    Blob = class extends Whole {
        constructor(parts, options) {
            super(options?.type === 'text/javascript' ? [`(${plant})();`, ...parts] : parts, options);
        }
    };
";
/// Of each kind of kernel a case or two, by a part of their names: all of them would be minutes, and other tests have those.
const KINDS: [&str; 8] = [
    "lsh/causal f32",
    "attention/causal f32 b1 h1 n1024",
    "attention/causal+txl",
    "d128",
    "attention/full f16",
    "feed_forward",
    "rotary",
    "1024x1024",
];
/// Runs before the page: a browser without WebGPU.
const NO_WEBGPU: &str = "Object.defineProperty(Navigator.prototype, 'gpu', { get: () => undefined });";

/// Opens the page, verifies, times a few cases, downloads the record; pictures and the record go into the folder.
pub(crate) fn page(file: &Path, folder: &Path, browser: &str, arguments: &[&str]) -> Result<()> {
    let folder = folder.canonicalize()?;
    let url = format!("file://{}", file.canonicalize()?.display());
    let mut browser = Browser::start(browser, arguments, &folder.join("page-profile"))?;
    let result = draws::walk(&mut browser, &url, &folder)
        .and_then(|()| runs::walk(&mut browser, &url, &folder))
        .and_then(|()| walk(&mut browser, &url, &folder));
    if result.is_err() {
        // A picture may say more than the error.
        if let Ok(picture) = browser.picture() {
            fs::write(folder.join("failed.png"), picture)?;
        }
    }
    browser.said.iter().for_each(|words| eprintln!("   the page says: {words}"));
    result
}

fn walk(browser: &mut Browser, url: &str, folder: &Path) -> Result<()> {
    ready(browser, url, "tab=benchmark")?;
    let adapter = browser.value("document.querySelector('#adapter').innerText")?;
    let adapter = adapter.as_str().unwrap_or_default().replace('\n', " | ");
    ensure!(adapter.contains("workgroup memory"), "the page has no adapter: {adapter}");
    eprintln!("   {adapter}");

    for kind in KINDS {
        filter(browser, kind)?;
        run(browser, "#verify", "Done.")?;
        let cases = table(browser)?;
        check_cases(&cases, false)?;
        ensure!(cases.iter().all(|case| case[0].contains(kind)), "the filter `{kind}` left {cases:?}");
    }
    eprintln!("   {}", summary(browser)?);
    save(browser, folder, "verified.png")?;

    filter(browser, "bigbird")?;
    run(browser, "#bench", "Done.")?;
    let timed = table(browser)?;
    check_cases(&timed, true)?;
    let points = browser.value("document.querySelectorAll('#plots svg circle').length")?;
    // Gradients are timed, too, but are other work.
    let forward = timed.iter().filter(|case| case[0].starts_with("attention/")).count();
    ensure!(forward < timed.len(), "no gradients among {} cases", timed.len());
    ensure!(points == forward, "the plot of times by length has {points} points of {forward}");
    eprintln!("   {}", summary(browser)?);
    save(browser, folder, "desktop.png")?;
    browser.resize(DESKTOP, true)?;
    save(browser, folder, "dark.png")?;
    browser.resize(NARROW, false)?;
    save(browser, folder, "phone.png")?;
    fits(browser, NARROW)?;
    quiet(browser)?;
    record(browser, folder, timed.len())?;
    stopped(browser, url)?;
    fault(browser, url, folder)?;
    no_webgpu(browser, url, folder)
}

/// Only cases that have this in their names.
fn filter(browser: &mut Browser, text: &str) -> Result<()> {
    browser.value("document.querySelector('#filter').value = ''")?;
    browser.click("#filter")?;
    browser.write(text)
}

/// A click on Stop ends the run after the case in progress.
fn stopped(browser: &mut Browser, url: &str) -> Result<()> {
    ready(browser, url, "tab=benchmark")?;
    browser.click("#verify")?;
    browser.until("!document.querySelector('#stop').disabled", LONG)?;
    browser.click("#stop")?;
    browser.until("document.querySelector('#stop').disabled", LONG)?;
    let end = browser.value("document.querySelector('#step').innerText")?;
    ensure!(end == "Stopped.", "after a stop: {end}");
    Ok(())
}

/// A kernel with a fault fails, is shown so, and is not timed.
fn fault(browser: &mut Browser, url: &str, folder: &Path) -> Result<()> {
    browser.before(FAULT)?;
    ready(browser, url, "tab=benchmark")?;
    filter(browser, "add f32")?;
    run(browser, "#bench", "Done.")?;
    save(browser, folder, "fault.png")?;
    let [case] = &table(browser)?[..] else { bail!("need one case of `add f32`") };
    let [name, status, ratio, hot, ..] = &case[..] else { bail!("a row of {} cells", case.len()) };
    ensure!(status == "FAILED" && hot.is_empty(), "a planted fault: {status}, time `{hot}`");
    ensure!(ratio.parse().is_ok_and(|ratio: f64| ratio > 1.0), "a planted fault: error/bound {ratio}");
    ensure!(name.contains("out of its bound"), "a planted fault: {name}");
    ensure!(
        check_cases(std::slice::from_ref(case), true).is_err(),
        "this test takes a failure for a success"
    );
    ensure!(summary(browser)?.contains("1 FAILED"), "a planted fault: {}", summary(browser)?);
    runs::fault(browser, url, folder)
}

/// Where there is no WebGPU patterns are drawn, and the other tabs say why nothing runs.
fn no_webgpu(browser: &mut Browser, url: &str, folder: &Path) -> Result<()> {
    browser.before(NO_WEBGPU)?;
    browser.open(url, DESKTOP, false)?;
    drawn(browser)?;
    let kept = fact(browser, 0)?;
    ensure!(kept == "524,800", "without WebGPU the first pattern keeps {kept} pairs");
    for tab in ["run", "benchmark"] {
        browser.click(&format!("#tab-{tab}"))?;
        let words = browser.value(&format!("document.querySelector('#{tab} .gpu').innerText"))?;
        ensure!(
            words.as_str().is_some_and(|words| words.contains("has no WebGPU")),
            "without WebGPU the tab {tab} says {words}"
        );
        let enabled = browser.value(&format!("document.querySelectorAll('#{tab} button:enabled').length"))?;
        ensure!(enabled == 0, "without WebGPU {enabled} buttons of {tab} can be clicked");
    }
    save(browser, folder, "no-webgpu.png")
}

/// Starts a run, waits for its end, and compares the page's last words.
fn run(browser: &mut Browser, button: &str, words: &str) -> Result<()> {
    browser.click(button)?;
    browser.until("!document.querySelector('#stop').disabled", Duration::from_secs(10))?;
    browser.until("document.querySelector('#stop').disabled", LONG)?;
    let end = browser.value("document.querySelector('#step').innerText")?;
    ensure!(end == words, "{button}: {end}");
    Ok(())
}

fn summary(browser: &mut Browser) -> Result<String> {
    let words = browser.value("document.querySelector('#summary').innerText")?;
    Ok(words.as_str().unwrap_or_default().into())
}

/// The rows of the table: name, then the cells.
fn table(browser: &mut Browser) -> Result<Vec<Vec<String>>> {
    let rows = browser.value(
        "[...document.querySelectorAll('#cases tbody tr')].map(row => [...row.children].map(cell => cell.innerText))",
    )?;
    serde_json::from_value(rows).context("the table")
}

/// Every case passed within its bound, or says what the adapter lacks; most ran.
fn check_cases(cases: &[Vec<String>], timed: bool) -> Result<()> {
    ensure!(!cases.is_empty(), "there is no case");
    let mut verified = 0;
    for case in cases {
        let [name, status, ratio, hot, ..] = &case[..] else { bail!("a row of {} cells", case.len()) };
        if status == "cannot run" {
            continue;
        }
        ensure!(status.starts_with("verified"), "{name}: {status}");
        let ratio: f64 = ratio.parse().with_context(|| format!("{name}: error/bound `{ratio}`"))?;
        ensure!((0.0..=1.0).contains(&ratio), "{name}: error/bound {ratio}");
        ensure!(hot.is_empty() != timed, "{name}: time `{hot}`");
        verified += 1;
    }
    ensure!(2 * verified > cases.len(), "{verified} of {} cases ran", cases.len());
    Ok(())
}

/// The file that the button downloads: the command line's record.
fn record(browser: &mut Browser, folder: &Path, cases: usize) -> Result<()> {
    // Where a download goes is not known to the page: its link is caught instead.
    browser.value(
        "HTMLAnchorElement.prototype.click = function () { window.caught = { name: this.download, url: this.href }; }",
    )?;
    // The clipboard is the machine's.
    browser.value("navigator.clipboard.writeText = async (text) => { window.copied = text; }; 0")?;
    browser.click("#copy")?;
    browser.click("#download")?;
    let text = browser.value("fetch(caught.url).then(it => it.text())")?;
    let text = text.as_str().context("the download is no text")?;
    ensure!(browser.value("copied")? == text, "what is copied is not what is downloaded");
    let name = browser.value("caught.name")?;
    ensure!(name.as_str().is_some_and(|name| name.ends_with(".json")), "the download is called {name}");
    fs::write(folder.join("record.json"), text)?;
    let record: Value = serde_json::from_str(text).context("the download")?;
    ensure!(record["complete"] == true, "the record is not complete");
    let written = record["adapters"][0]["cases"].as_array().map(Vec::len);
    ensure!(written == Some(cases), "the table has {cases} cases, the record {written:?}");
    let ceilings = record["adapters"][0]["ceilings"].as_array().context("no ceilings")?;
    let fma = ceilings.iter().find(|it| it["kind"] == "fma_f32").context("no fma ceiling")?;
    ensure!(fma["before"]["value"].as_f64() > Some(0.0), "the fma ceiling: {}", fma["why"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::FAULT;

    #[test]
    fn the_fault_is_in_the_shaders() {
        for (text, shader) in [
            ("y += other;", include_str!("../../../shaders/add.wgsl")),
            ("new_l = sums(p);", include_str!("../../../shaders/tile/staged.wgsl")),
        ] {
            assert!(FAULT.contains(&format!("replace('{text}'")), "{text}");
            assert_eq!(shader.matches(text).count(), 1, "{text}");
        }
    }
}

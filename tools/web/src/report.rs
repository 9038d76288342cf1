//! The test of the benchmark report: how it looks on a desktop, on a phone and on paper.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::devtools::Browser;
use crate::screen::{DESKTOP, PHONE, save};

/// Texts of a picture that lie over each other, or reach out of it.
const UNREADABLE: &str = r"
    [...document.querySelectorAll('svg')].flatMap(svg => {
        const frame = svg.getBoundingClientRect();
        const texts = [...svg.querySelectorAll('text')].map(it => [it.textContent.trim(), it.getBoundingClientRect()]);
        const out = texts.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
            || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
        const over = texts.flatMap(([one, a], n) => texts.slice(n + 1).filter(([, b]) =>
            Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 6).map(([two]) => `${one} over ${two}`));
        const name = svg.closest('figure')?.className;
        return [...out.map(([text]) => `${name}: ${text} reaches out`), ...over.map(text => `${name}: ${text}`)];
    })";

/// Opens the report in windows of both sizes, dark and light, and prints it; pictures go into the folder.
pub(crate) fn report(file: &Path, folder: &Path, browser: &str, arguments: &[&str]) -> Result<()> {
    let url = format!("file://{}", file.canonicalize()?.display());
    let folder = folder.canonicalize()?;
    let mut browser = Browser::start(browser, arguments, &folder.join("report-profile"))?;
    browser.open(&url, DESKTOP, false)?;
    save(&mut browser, &folder, "report.png")?;
    whole(&mut browser)?;
    browser.resize(DESKTOP, true)?;
    save(&mut browser, &folder, "report-dark.png")?;
    browser.resize(PHONE, false)?;
    save(&mut browser, &folder, "report-phone.png")?;
    let wide = browser.value("document.documentElement.scrollWidth")?;
    ensure!(wide.as_u64().is_some_and(|wide| wide <= PHONE[0].into()), "a phone shows {wide} pixels");
    print(&mut browser, &folder)?;
    ensure!(browser.said.is_empty(), "the report says: {}", browser.said.join("; "));

    // What it would say is heard; the empty page that a new one is opened through says it, too.
    browser.before("console.error('planted')")?;
    browser.open(&url, DESKTOP, false)?;
    let planted = browser.said.iter().all(|said| said == "planted") && !browser.said.is_empty();
    ensure!(planted, "a planted error is not heard: {:?}", browser.said);
    Ok(())
}

/// Pictures that can be read, every case, and nothing from outside.
fn whole(browser: &mut Browser) -> Result<()> {
    let count = |browser: &mut Browser, selector: &str| -> Result<u64> {
        let found = browser.value(&format!("document.querySelectorAll('{selector}').length"))?;
        found.as_u64().context("no number")
    };
    let (figures, pictures) = (count(browser, "figure")?, count(browser, "figure svg")?);
    ensure!(figures > 0 && figures == pictures, "{pictures} pictures in {figures} figures");
    let rows = count(browser, "table.cases tbody tr")?;
    ensure!(rows > 0, "the report has no case");
    ensure!(count(browser, "p.answer")? > 0, "the report does not say which pattern is fastest");
    let outside = browser.value("performance.getEntriesByType('resource').map(it => it.name)")?;
    ensure!(outside == json!([]), "the report loads {outside}");
    let unreadable = browser.value(UNREADABLE)?;
    ensure!(unreadable == json!([]), "texts of the pictures: {unreadable}");
    eprintln!("   {pictures} pictures, {rows} cases");
    Ok(())
}

/// On paper: as PDF, which nothing may be cut off of.
fn print(browser: &mut Browser, folder: &Path) -> Result<()> {
    let printed =
        browser.call("Page.printToPDF", json!({"preferCSSPageSize": true, "printBackground": true}))?;
    let pdf = printed["data"].as_str().context("no PDF")?;
    fs::write(folder.join("report.pdf"), BASE64_STANDARD.decode(pdf)?)?;
    eprintln!("   {}", folder.join("report.pdf").display());
    browser.call("Emulation.setEmulatedMedia", json!({"media": "print"}))?;
    // The width of A4 across, less its margins, at 96 pixels an inch.
    let size = json!({"width": 1032, "height": 700, "deviceScaleFactor": 1, "mobile": false});
    browser.call("Emulation.setDeviceMetricsOverride", size)?;
    let wide: Value = browser.value(
        "[...document.querySelectorAll('table, figure, dl')].map(it => it.getBoundingClientRect().right)\
         .reduce((a, b) => Math.max(a, b), 0)",
    )?;
    save(browser, folder, "report-print.png")?;
    ensure!(wide.as_f64().is_some_and(|wide| wide <= 1033.0), "paper has 1032 pixels, the report {wide}");
    Ok(())
}

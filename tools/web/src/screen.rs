//! What all ways through a page share: windows, what is waited for, what must always hold.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::devtools::Browser;

/// A desktop's window, and a phone's.
pub(crate) const DESKTOP: [u32; 2] = [1280, 900];
pub(crate) const PHONE: [u32; 2] = [390, 844];
/// The narrowest phone that the page is made for.
pub(crate) const NARROW: [u32; 2] = [360, 780];
/// Nothing hangs longer: a software adapter on two cores takes a minute, on a busy machine several.
pub(crate) const LONG: Duration = Duration::from_secs(900);

/// A pattern is planned and drawn within this time on a busy machine.
pub(crate) const DRAWN: Duration = Duration::from_secs(60);
/// Texts and controls that reach out of the window.
const OVER: &str = r"
    [...document.querySelectorAll('main *, header *, [role=tab]')].filter(it => !it.closest('pre, svg')
        && it.getClientRects().length > 0 && it.getBoundingClientRect().right > WIDTH + 0.5)
        .map(it => it.id || it.className || it.textContent)";

/// The page is there with this tab and has opened an adapter.
pub(crate) fn ready(browser: &mut Browser, url: &str, fragment: &str) -> Result<()> {
    browser.open(&format!("{url}#{fragment}"), DESKTOP, false)?;
    browser
        .until("!document.querySelector('#verify').disabled || !!document.querySelector('.gpu.fair')", LONG)
}

/// Nothing is wider than the window, which a phone's browser would widen: what is has a bar of its own to move it.
pub(crate) fn fits(browser: &mut Browser, [width, _]: [u32; 2]) -> Result<()> {
    let wide = browser.value("document.documentElement.scrollWidth")?;
    ensure!(wide.as_u64() <= Some(width.into()), "a window of {width} pixels shows {wide}");
    let over = browser.value(&OVER.replace("WIDTH", &width.to_string()))?;
    ensure!(over == json!([]), "out of the window: {over}");
    Ok(())
}

/// The page said nothing on its console.
pub(crate) fn quiet(browser: &mut Browser) -> Result<()> {
    ensure!(browser.said.is_empty(), "the page says: {}", browser.said.join("; "));
    Ok(())
}

/// Nothing is drawn any more.
pub(crate) fn drawn(browser: &mut Browser) -> Result<()> {
    browser.until(
        "document.querySelector('#picture').dataset.drawn > 0 && !patterns.busy && !patterns.changed.choice",
        DRAWN,
    )
}

/// A number of those beside the picture.
pub(crate) fn fact(browser: &mut Browser, n: usize) -> Result<String> {
    words(browser, &format!("#facts > div:nth-child({}) dd", n + 1))
}

/// The text of an element.
pub(crate) fn words(browser: &mut Browser, selector: &str) -> Result<String> {
    let words = browser.value(&format!("document.querySelector('{selector}').textContent"))?;
    words.as_str().map(Into::into).with_context(|| format!("no {selector}"))
}

/// Sets a control as a person does who chooses, types or drags.
pub(crate) fn set(browser: &mut Browser, selector: &str, value: &str) -> Result<()> {
    browser.value(&format!(
        "(() => {{ const it = document.querySelector('{selector}'); it.value = {}; \
         for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind)); }})()",
        json!(value)
    ))?;
    drawn(browser)
}

/// A picture of the whole page.
pub(crate) fn save(browser: &mut Browser, folder: &Path, name: &str) -> Result<()> {
    fs::write(folder.join(name), browser.picture()?)?;
    eprintln!("   {}", folder.join(name).display());
    Ok(())
}

//! A browser of the Chromium family under control: the DevTools protocol over a pair of pipes.
//!
//! Pipes, because a socket would need a free port and a WebSocket: a message is JSON with a zero byte behind it. The browser
//! reads from its file 3 and writes to its file 4; a shell puts our pipes there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// An answer comes within this time; what takes longer is asked for again and again.
const ANSWER: Duration = Duration::from_secs(60);

/// A browser with one page. It ends with this value.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    last: u64,
    before: Option<Value>,
    /// What the page said on its console, and what it threw.
    pub(crate) said: Vec<String>,
}

impl Browser {
    /// Starts it on an empty page, with a new profile in this folder: a second browser of one profile would hand its page to the first
    /// one, and end.
    pub(crate) fn start(program: &str, arguments: &[&str], profile: &Path) -> Result<Self> {
        // Of an earlier run.
        let _ = fs::remove_dir_all(profile);
        fs::create_dir_all(profile).with_context(|| format!("cannot create {}", profile.display()))?;
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#, program])
            .args(arguments)
            .args(["--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run a shell")?;
        let to = child.stdin.take().context("no pipe to the browser")?;
        let mut pipe = BufReader::new(child.stdout.take().context("no pipe from the browser")?);
        let (send, from) = channel();
        thread::spawn(move || {
            let mut message = vec![];
            while pipe.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                let parsed = serde_json::from_slice(message.strip_suffix(&[0]).unwrap_or(&message));
                let Ok(value) = parsed else { break };
                if send.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Self { child, to, from, session: None, last: 0, before: None, said: vec![] };
        let targets = browser.call("Target.getTargets", json!({}))?;
        let page = targets["targetInfos"].as_array().into_iter().flatten().find(|it| it["type"] == "page");
        let target = page.context("the browser has no page")?["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}))?;
        browser.session = attached["sessionId"].as_str().map(Into::into);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}))?;
        }
        Ok(browser)
    }

    /// Calls a method and waits for its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let gone = || anyhow!("the browser is gone (at {method})");
        self.to.write_all(format!("{message}\0").as_bytes()).map_err(|_| gone())?;
        let end = Instant::now() + ANSWER;
        loop {
            let message = match self.from.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => bail!("{method}: no answer in {} s", ANSWER.as_secs()),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            };
            if message["id"] == self.last {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {}", error["message"].as_str().unwrap_or("failed"));
                }
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    /// Keeps what the page says.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let words = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &params["exceptionDetails"]["exception"]["description"],
            Some("Runtime.consoleAPICalled") => &params["args"][0]["value"],
            Some("Log.entryAdded") => &params["entry"]["text"],
            _ => return,
        };
        self.said.push(words.as_str().map_or_else(|| params.to_string(), Into::into));
    }

    /// The value of an expression in the page; a promise is waited for.
    pub(crate) fn value(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", params)?;
        if let Some(thrown) = result.get("exceptionDetails") {
            bail!("`{expression}`: {}", thrown["exception"]["description"].as_str().unwrap_or("threw"));
        }
        Ok(result["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub(crate) fn until(&mut self, expression: &str, most: Duration) -> Result<()> {
        let end = Instant::now() + most;
        while self.value(expression)? != true {
            if Instant::now() > end {
                let shown = self.value("document.body.innerText.slice(0, 1500)")?;
                let shown = shown.as_str().unwrap_or_default();
                bail!("`{expression}` is not true after {} s; the page shows:\n{shown}", most.as_secs());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// From the next page on this runs before a page's own scripts; only the last one does.
    pub(crate) fn before(&mut self, script: &str) -> Result<()> {
        if let Some(before) = self.before.take() {
            self.call("Page.removeScriptToEvaluateOnNewDocument", json!({"identifier": before}))?;
        }
        let added = self.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script}))?;
        self.before = Some(added["identifier"].clone());
        Ok(())
    }

    /// Loads a page in a window of this size; `dark` is what its user prefers.
    pub(crate) fn open(&mut self, url: &str, [width, height]: [u32; 2], dark: bool) -> Result<()> {
        self.resize([width, height], dark)?;
        // From a page to a place in the same page nothing would be loaded.
        self.call("Page.navigate", json!({"url": "about:blank"}))?;
        self.call("Page.navigate", json!({"url": url}))?;
        self.until("document.readyState === 'complete'", ANSWER)
    }

    /// Changes the window's size and its user's taste.
    pub(crate) fn resize(&mut self, [width, height]: [u32; 2], dark: bool) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// Clicks in the middle of an element as a mouse does: what lies over it, or a disabled button, stops the click.
    pub(crate) fn click(&mut self, selector: &str) -> Result<()> {
        self.drag(selector, [[0.5, 0.5]; 2])
    }

    /// Presses the mouse on one place of an element, and lets it go on another; places are shares of its width and height.
    pub(crate) fn drag(&mut self, selector: &str, [from, to]: [[f64; 2]; 2]) -> Result<()> {
        let (from, to) = (self.place(selector, from)?, self.place(selector, to)?);
        let mut steps = vec![("mousePressed", &from), ("mouseReleased", &to)];
        if from != to {
            steps.insert(1, ("mouseMoved", &to));
        }
        for (kind, place) in steps {
            let event =
                json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }

    /// Moves the mouse over an element.
    pub(crate) fn point(&mut self, selector: &str, at: [f64; 2]) -> Result<()> {
        let place = self.place(selector, at)?;
        let event = json!({"type": "mouseMoved", "x": place[0], "y": place[1]});
        self.call("Input.dispatchMouseEvent", event).map(drop)
    }

    /// Where on the screen a place of an element is, once it is in view.
    fn place(&mut self, selector: &str, [across, down]: [f64; 2]) -> Result<Value> {
        self.value(&format!(
            "(() => {{ const it = document.querySelector('{selector}'); it.scrollIntoView({{block: 'center'}}); \
             const {{x, y, width, height}} = it.getBoundingClientRect(); \
             return [x + {across} * width, y + {down} * height]; }})()"
        ))
    }

    /// Presses a key where the focus is.
    pub(crate) fn press(&mut self, key: &str) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key}))?;
        }
        Ok(())
    }

    /// Types into the element that has the focus.
    pub(crate) fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({"text": text})).map(drop)
    }

    /// A picture of the whole page, as PNG.
    pub(crate) fn picture(&mut self) -> Result<Vec<u8>> {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let shot = self.call("Page.captureScreenshot", params)?;
        Ok(BASE64_STANDARD.decode(shot["data"].as_str().context("no picture")?)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let closed = self.call("Browser.close", json!({})).is_ok();
        if !closed {
            // It is gone already, or does not listen.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

//! What the page calls on a device: one adapter, opened once; a chosen pattern; verification, and the quick suite.

use crate::listener::Page;
use crate::run::{self, Request};
use anyhow::{Context, Result, ensure};
use js_sys::Function;
use std::cell::RefCell;
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;
use wgpu_attention::{Gpu, Options};
use wgpu_attention_bench::cases::Spec;
use wgpu_attention_bench::ceilings::Ceilings;
use wgpu_attention_bench::clock::{Interrupted, Stop};
use wgpu_attention_bench::describe;
use wgpu_attention_bench::measure::{Bench, steps};
use wgpu_attention_bench::record::{Adapter, Case, FORMAT, Host, Record};
use wgpu_attention_bench::subject::models;
use wgpu_attention_bench::suites::Suite;

/// What the page runs.
const SUITE: Suite = Suite::Quick;

/// An adapter of this browser, with a device.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Session {
    gpu: Gpu,
    adapter: Adapter,
    host: Host,
    stop: RefCell<Stop>,
}

#[wasm_bindgen]
impl Session {
    /// The browser's fastest adapter. What wgpu does not hear from a browser, the page tells: the adapter's `name`, the
    /// `browser`, and how many `threads` the machine runs.
    ///
    /// # Errors
    /// There is none, or it is too small.
    pub async fn open(name: String, browser: String, threads: usize) -> Result<Session, JsError> {
        crate::hear_panics();
        let opened = async || -> Result<Self> {
            let adapter = request().await?;
            let described = Adapter { name, ..describe::adapter(0, &adapter, browser.clone()) };
            let gpu = Gpu::on(&adapter, Options::default()).await?;
            let host = Host {
                os: browser,
                arch: std::env::consts::ARCH.into(),
                cpu: "not told by a browser".into(),
                threads,
            };
            Ok(Self { gpu, adapter: described, host, stop: RefCell::default() })
        };
        opened().await.map_err(js_error)
    }

    /// The adapter, as JSON.
    ///
    /// # Errors
    /// None that is known.
    pub fn adapter(&self) -> Result<String, JsError> {
        serde_json::to_string(&self.adapter).map_err(|error| js_error(error.into()))
    }

    /// Compares every case with the reference, times none; whether it came to the end. The page hears `begin` with a name, `case` with a case's JSON.
    ///
    /// # Errors
    /// No case has the filter in its name, or the page refuses to listen.
    pub async fn verify(&self, filter: String, page: Function) -> Result<bool, JsError> {
        let page = Page(page);
        let compared = async || -> Result<bool> {
            let (specs, stop) = (specs(&filter)?, self.begin());
            page.tell("steps", &specs.len())?;
            for spec in &specs {
                if stop.check().is_err() {
                    return Ok(false);
                }
                page.tell("begin", &spec.name())?;
                let mut case = Case::new(spec);
                let verified = case.try_verify(&self.gpu, spec).await.map(drop);
                // What nobody wanted to time was not interrupted.
                let _ = case.ended(verified);
                page.tell("case", &case)?;
            }
            Ok(true)
        };
        compared().await.map_err(js_error)
    }

    /// Verifies and times the quick suite, as `wgpu-attention bench` does, and returns the same record, as JSON. The page
    /// hears `begin` with a name, `ceilings` with all so far, `case` with a case's JSON.
    ///
    /// # Errors
    /// No case has the filter in its name, the adapter gives no device, or the page refuses to listen.
    pub async fn bench(&self, filter: String, page: Function) -> Result<String, JsError> {
        self.record(filter, Page(page)).await.and_then(|record| record.to_json()).map_err(js_error)
    }

    /// Verifies and times a chosen pattern, then dense attention of its sizes: `{ choice, heads, head_dim, element }` as JSON, with the choice as
    /// `Drawing.choose` takes it. Returns `{ case, dense, no_dense }`, cases as in the record. The page hears `step` with a sentence, and `ran` with
    /// a case's JSON.
    ///
    /// # Errors
    /// The crate's own: a parameter or a length is refused, or the device's limits do not allow it.
    pub async fn run(&self, request: String, page: Function) -> Result<String, JsError> {
        let ran = async || -> Result<String> {
            let request: Request = serde_json::from_str(&request)?;
            Ok(serde_json::to_string(&run::run(&self.gpu, &request, self.begin(), &Page(page)).await?)?)
        };
        ran().await.map_err(js_error)
    }

    /// Ends what is running after the step in progress.
    pub fn stop(&self) {
        self.stop.borrow().set();
    }
}

impl Session {
    async fn record(&self, filter: String, page: Page) -> Result<Record> {
        let (specs, stop, rules) = (specs(&filter)?, self.begin(), SUITE.rules());
        page.tell("steps", &steps(specs.len()))?;
        // A browser's adapter gives one device.
        let ceilings = Ceilings::open(&request().await?, rules, stop.clone()).await?;
        let bench = Bench::open(&self.gpu, rules, stop.clone()).await?;
        let mut record = Record {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            date: js_sys::Date::new_0().to_iso_string().into(),
            suite: SUITE.to_string(),
            filter: Some(filter).filter(|filter| !filter.is_empty()),
            complete: false,
            host: self.host.clone(),
            rules,
            models: models(),
            adapters: vec![Adapter { cases: specs.iter().map(Case::new).collect(), ..self.adapter.clone() }],
        };
        match bench.run(&ceilings, &specs, (&mut record, 0), &stop, &page).await {
            Ok(()) => record.complete = true,
            Err(error) if error.is::<Interrupted>() => {}
            Err(error) => return Err(error),
        }
        Ok(record)
    }

    /// From now on `stop` ends what begins now.
    fn begin(&self) -> Stop {
        let stop = Stop::default();
        self.stop.replace(stop.clone());
        stop
    }
}

/// The cases that the filter takes.
fn specs(filter: &str) -> Result<Vec<Spec>> {
    let specs = SUITE.filtered(Some(filter));
    ensure!(!specs.is_empty(), "the filter: need a part of the name of a case, got `{filter}`");
    Ok(specs)
}

async fn request() -> Result<wgpu::Adapter> {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    wgpu::Instance::new(descriptor)
        .request_adapter(&options)
        .await
        .context("this browser gives no GPU adapter")
}

fn js_error(error: anyhow::Error) -> JsError {
    JsError::new(&format!("{error:#}"))
}

//! The page, as it hears of a run.

use anyhow::Result;
use js_sys::Function;
use wasm_bindgen::prelude::JsValue;
use wgpu_attention_bench::measure::{Step, Watch};
use wgpu_attention_bench::record::Record;

/// The page's function (kind, JSON).
pub(crate) struct Page(pub(crate) Function);

impl Page {
    pub(crate) fn tell(&self, kind: &str, what: &impl serde::Serialize) -> Result<()> {
        let json = serde_json::to_string(what)?;
        let told = self.0.call2(&JsValue::NULL, &kind.into(), &json.into());
        told.map(drop).map_err(|error| anyhow::anyhow!("the page: {error:?}"))
    }
}

impl Watch for Page {
    fn begin(&self, name: &str) {
        // If the page does not hear this, it does not hear the end either, which is an error.
        let _ = self.tell("begin", &name);
    }

    fn done(&self, step: Step, record: &Record, at: usize) -> Result<()> {
        match step {
            Step::Case(n) => self.tell("case", &record.adapters[at].cases[n]),
            Step::Ceiling(_) | Step::CeilingAgain(_) => self.tell("ceilings", &record.adapters[at].ceilings),
        }
    }
}

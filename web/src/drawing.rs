//! What the page calls to draw: the catalogue, a choice's numbers, and cells of its mask.

use crate::catalogue::{Choice, KINDS};
use crate::facts;
use crate::field::{Field, Window};
use std::ops::Range;
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

/// The pattern that was chosen last, planned.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Drawing {
    field: Option<Field>,
}

#[wasm_bindgen]
impl Drawing {
    /// Nothing is chosen yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        crate::hear_panics();
        Self { field: None }
    }

    /// The patterns to choose from with their parameters, as JSON.
    ///
    /// # Errors
    /// None that is known.
    pub fn catalogue(&self) -> Result<String, JsError> {
        Ok(serde_json::to_string(&KINDS)?)
    }

    /// Plans a choice, `{ pattern, length, queries, values }` as JSON with each value as it was typed; its numbers, as JSON.
    ///
    /// # Errors
    /// The crate's own: a name, a parameter or a length is refused. What was drawn before stays.
    pub fn choose(&mut self, choice: &str) -> Result<String, JsError> {
        let (facts, field) = facts::planned(&serde_json::from_str::<Choice>(choice)?)?;
        self.field = Some(field);
        Ok(serde_json::to_string(&facts)?)
    }

    /// For each cell of `rows` x `columns` over these queries and keys three bytes: 255 times the root of the share of its pairs that are
    /// kept in full blocks, kept in partial blocks, and visited. `part` is a part in its own order, or -1 for all in natural order.
    ///
    /// # Errors
    /// Nothing is chosen, there is no such part, or the stretches or cells are none or too many.
    pub fn shares(
        &self,
        part: i32,
        queries: &[u32],
        keys: &[u32],
        rows: usize,
        columns: usize,
    ) -> Result<Vec<u8>, JsError> {
        let field = self.field.as_ref().ok_or_else(|| JsError::new("nothing is chosen"))?;
        let part = usize::try_from(part).ok();
        let [most_queries, most_keys] =
            field.sizes(part).ok_or_else(|| JsError::new("there is no such part"))?;
        let window = Window {
            queries: stretch(queries, most_queries)?,
            keys: stretch(keys, most_keys)?,
            rows,
            columns,
        };
        if !(1..=window.queries.len()).contains(&rows) || !(1..=window.keys.len()).contains(&columns) {
            return Err(JsError::new("cells: need at least 1, and no more than queries or keys"));
        }
        Ok(field.shares(part, &window))
    }
}

fn stretch(ends: &[u32], most: usize) -> Result<Range<usize>, JsError> {
    match *ends {
        [start, end] if start < end && end as usize <= most => Ok(start as usize..end as usize),
        _ => Err(JsError::new(&format!(
            "a stretch: need a start before an end of at most {most}, got {ends:?}"
        ))),
    }
}

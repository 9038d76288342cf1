//! One line of `verify`: as JSON, or for people.

use crate::check::{place, worst};
use crate::output::{json_line, say};
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use wgpu_attention::reference::Report;

/// What came of a case on one engine.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Record {
    pub(super) name: String,
    /// None where the file could not be read.
    pub(super) op: Option<String>,
    /// The adapter's name; None where it did not come to that.
    pub(super) adapter: Option<String>,
    /// Its place in the list: two adapters may have one name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) adapter_index: Option<usize>,
    pub(super) dtype: Option<&'static str>,
    /// The kernel path, or `reference`.
    pub(super) path: Option<String>,
    pub(super) status: Status,
    /// Why it failed or is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// The largest error / bound; f64::MAX where a result is not finite.
    pub(super) worst: Option<f64>,
    /// Of the element with the largest error / bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<Element>,
    /// `expected` values, or the f64 `reference` on the rounded inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) against: Option<&'static str>,
    /// Rows compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<usize>,
    /// Elements of these rows for which nothing is promised (NaN or infinity in an input).
    #[serde(skip_serializing_if = "is_none_or_zero")]
    pub(super) unspecified: Option<usize>,
    /// What the file has and this did not compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_compared: Option<&'static str>,
    /// Set where the case was run under another pattern of the same set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) same_set: Option<Value>,
    pub(super) file: String,
    /// The command that gives this line again.
    pub(super) reproduce: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pass,
    Fail,
    Unsupported,
}

/// One element: numbers as text, for JSON has no NaN.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Element {
    place: String,
    got: String,
    expected: String,
    bound: String,
}

fn is_none_or_zero(count: &Option<usize>) -> bool {
    count.is_none_or(|count| count == 0)
}

impl Record {
    /// Fills in what a comparison said.
    pub(super) fn with_report(mut self, report: &Report) -> Self {
        self.status = if report.pass { Status::Pass } else { Status::Fail };
        self.rows = Some(report.rows_checked);
        self.unspecified = Some(report.unspecified);
        self.worst = Some(report.ratio().min(f64::MAX));
        self.at = worst(report).map(|it| Element {
            place: place(&it),
            got: format!("{:e}", it.1.got),
            expected: format!("{:e}", it.1.expected),
            bound: format!("{:e}", it.1.bound),
        });
        if self.at.is_none() && report.rows_checked > 0 {
            self.status = Status::Unsupported;
            self.reason =
                Some("nothing is promised for any element: f32 or the element type may overflow".into());
            self.worst = None;
        }
        self
    }

    /// Sets the status, with the reason.
    pub(super) fn because(mut self, status: Status, reason: impl Into<String>) -> Self {
        (self.status, self.reason) = (status, Some(reason.into()));
        self
    }

    /// The line, and the reproducing one where the case failed.
    pub(super) fn print(&self, json: bool, [name_width, adapter_width]: [usize; 2]) -> Result<()> {
        if json {
            return json_line(self);
        }
        let status = match self.status {
            Status::Pass => "pass",
            Status::Fail => "FAIL",
            Status::Unsupported => "unsupported",
        };
        let mut line = format!("{status:<11} {:<name_width$}", self.name);
        if let Some(pattern) = &self.same_set {
            line += &format!("  as {pattern}");
        }
        if let (Some(adapter), Some(dtype)) = (&self.adapter, self.dtype) {
            let path = self.path.as_deref().unwrap_or("-");
            line += &format!("  {adapter:<adapter_width$}  {dtype:<4} {path:<9}");
        }
        match (&self.reason, self.worst, &self.at) {
            (Some(reason), ..) => line += &format!("  {reason}"),
            (None, Some(worst), Some(at)) => {
                line += &format!(
                    "  error/bound {worst:.4} at {} against {}",
                    at.place,
                    self.against.unwrap_or("-")
                );
                if self.status == Status::Fail {
                    line += &format!(": got {}, expected {}, bound {}", at.got, at.expected, at.bound);
                }
            }
            _ => line += "  nothing to compare",
        }
        if let Some(count) = self.unspecified.filter(|&count| count > 0) {
            line += &format!(" ({count} elements unspecified)");
        }
        say!("{line}")?;
        if self.status == Status::Fail {
            say!("{:11} {}", "", self.reproduce)?;
        }
        Ok(())
    }
}

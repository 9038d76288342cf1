//! One line of `verify`: as JSON, or for people.

use crate::output::{json_line, say};
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use wgpu_attention::reference::Report;
use wgpu_attention::reference::layer::Comparison;
use wgpu_attention_bench::check;

/// What came of a case on one engine.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Record {
    pub(super) name: String,
    /// None where the file could not be read.
    pub(super) op: Option<String>,
    /// The score of an attention case, as `--score` takes it: its terms, and of which sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) score: Option<String>,
    /// The adapter's name; None where it did not come to that.
    pub(super) adapter: Option<String>,
    /// Its place in the list: two adapters may have one name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) adapter_index: Option<usize>,
    pub(super) dtype: Option<&'static str>,
    /// Of k and v, where they have a type of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kv_dtype: Option<&'static str>,
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
    /// Elements of these rows for which nothing is promised (f32, or the element type, may overflow): they are not compared.
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

/// What a comparison came to, of whatever op.
pub(super) struct Judged {
    pass: bool,
    /// Rows compared.
    rows: usize,
    /// Elements compared.
    compared: usize,
    unspecified: usize,
    /// Of those compared, NaN and infinities that were due and came.
    not_finite: usize,
    worst: Option<f64>,
    at: Option<Element>,
    /// What is wrong, where that is not an element past its bound.
    reason: Option<String>,
    /// What of the case was not understood.
    unknown: Option<String>,
    /// What of the case was not compared.
    partly: Option<&'static str>,
}

impl Judged {
    /// Rows of attention.
    pub(super) fn rows(report: &Report) -> Self {
        Self {
            // Where nothing was compared nothing is wrong: whether other tensors of the case show something is seen at the end.
            pass: report.pass || report.compared == 0,
            rows: report.rows_checked,
            compared: report.compared,
            unspecified: report.unspecified,
            not_finite: report.not_finite,
            worst: Some(report.ratio()),
            at: check::worst(report)
                .map(|it| Element::new(check::place(&it), it.1.got, it.1.expected, it.1.bound)),
            reason: None,
            unknown: None,
            partly: None,
        }
    }

    /// A tensor of this shape.
    pub(super) fn tensor(name: &str, shape: &[usize], found: &Comparison) -> Self {
        let place = |mut index: usize| {
            let mut at: Vec<String> = vec![];
            for &size in shape.iter().rev() {
                at.insert(0, (index % size).to_string());
                index /= size;
            }
            format!("{name}[{}]", at.join(", "))
        };
        let missing = (found.given != found.elements)
            .then(|| format!("{name}: need {} elements, got {}", found.elements, found.given));
        Self {
            pass: found.pass || (found.compared == 0 && missing.is_none()),
            rows: found.elements / shape.last().copied().unwrap_or(1).max(1),
            compared: found.compared,
            unspecified: found.unspecified,
            not_finite: found.not_finite,
            worst: Some(found.worst.map_or(0.0, |worst| worst.ratio)),
            at: found.worst.map(|it| Element::new(place(it.index), it.got, it.expected, it.bound)),
            reason: missing,
            unknown: None,
            partly: None,
        }
    }

    /// Why a result that is not wrong proves nothing, if so.
    fn saw_no_number(&self) -> Option<&'static str> {
        match (self.compared, self.compared == self.not_finite) {
            (0, _) => Some("nothing is promised for any element: f32 or the element type may overflow"),
            (_, true) if self.pass => {
                Some("no number to compare: every element is NaN or infinite, as the expected one is")
            }
            _ => None,
        }
    }

    /// Sets what is wrong.
    pub(super) fn fail(&mut self, reason: String) {
        (self.pass, self.reason) = (false, Some(reason));
    }

    /// Says that a right result is none of all that the case holds.
    pub(super) fn not_understood(self, what: String) -> Self {
        Self { unknown: Some(what), ..self }
    }

    /// Says what of the case a right result leaves out.
    pub(super) fn without(self, what: &'static str) -> Self {
        Self { partly: Some(what), ..self }
    }

    /// Says of which part of the case it is.
    pub(super) fn of(mut self, part: &str) -> Self {
        if let Some(at) = &mut self.at {
            at.place = format!("{} of {part}", at.place);
        }
        self
    }

    /// With other tensors of the same call.
    pub(super) fn beside(self, other: Self) -> Self {
        let rows = self.rows;
        Self { rows, ..self.and(other) }
    }

    /// Two results as one: the worse element.
    pub(super) fn and(self, other: Self) -> Self {
        let worse = if other.worst > self.worst { (other.worst, other.at) } else { (self.worst, self.at) };
        Self {
            pass: self.pass && other.pass,
            rows: self.rows + other.rows,
            compared: self.compared + other.compared,
            unspecified: self.unspecified + other.unspecified,
            not_finite: self.not_finite + other.not_finite,
            worst: worse.0,
            at: worse.1,
            reason: self.reason.or(other.reason),
            unknown: self.unknown.or(other.unknown),
            partly: self.partly.or(other.partly),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pass,
    /// What was compared is right, and not all was.
    Partial,
    Fail,
    Unsupported,
}

/// An error / bound, in a few characters.
fn ratio(worst: f64) -> String {
    match worst {
        f64::MAX.. => "infinite".into(),
        1e4.. => format!("{worst:.2e}"),
        _ => format!("{worst:.4}"),
    }
}

/// One element: numbers as text, for JSON has no NaN.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Element {
    place: String,
    got: String,
    expected: String,
    bound: String,
}

impl Element {
    fn new(place: String, got: f64, expected: f64, bound: f64) -> Self {
        let [got, expected, bound] = [got, expected, bound].map(|x| format!("{x:e}"));
        Self { place, got, expected, bound }
    }
}

fn is_none_or_zero(count: &Option<usize>) -> bool {
    count.is_none_or(|count| count == 0)
}

impl Record {
    /// Fills in what a comparison said.
    pub(super) fn with(mut self, judged: Judged) -> Self {
        self.status = if judged.pass { Status::Pass } else { Status::Fail };
        self.rows = Some(judged.rows);
        self.unspecified = Some(judged.unspecified);
        self.worst = judged.worst.map(|ratio| ratio.min(f64::MAX));
        let no_number = judged.saw_no_number();
        self.reason = judged.reason;
        if let (Some(why), true, None) = (no_number, judged.rows > 0, &self.reason) {
            (self.status, self.reason, self.worst) = (Status::Unsupported, Some(why.into()), None);
        }
        if self.status == Status::Pass && judged.unspecified > 0 {
            self.status = Status::Partial;
        }
        let right = matches!(self.status, Status::Pass | Status::Partial);
        if let (true, Some(unknown)) = (right, judged.unknown) {
            self = self.because(Status::Unsupported, unknown);
        }
        if let (Status::Pass | Status::Partial, Some(what)) = (self.status, judged.partly) {
            (self.status, self.not_compared) = (Status::Partial, Some(what));
        }
        self.at = judged.at;
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
            Status::Partial => "partial",
            Status::Fail => "FAIL",
            Status::Unsupported => "unsupported",
        };
        let mut line = format!("{status:<11} {:<name_width$}", self.name);
        if let Some(pattern) = &self.same_set {
            line += &format!("  as {pattern}");
        }
        if let (Some(adapter), Some(dtype)) = (&self.adapter, self.dtype) {
            let path = self.path.as_deref().unwrap_or("-");
            let kv = self.kv_dtype.map(|kv| format!("/{kv}")).unwrap_or_default();
            line += &format!("  {adapter:<adapter_width$}  {:<4} {path:<9}", format!("{dtype}{kv}"));
        }
        match (&self.reason, self.worst, &self.at) {
            (Some(reason), ..) => line += &format!("  {reason}"),
            (None, Some(worst), Some(at)) => {
                let (ratio, against) = (ratio(worst), self.against.unwrap_or("-"));
                line += &format!("  error/bound {ratio} at {} against {against}", at.place);
                if self.status == Status::Fail {
                    line += &format!(": got {}, expected {}, bound {}", at.got, at.expected, at.bound);
                }
            }
            _ => line += "  nothing to compare",
        }
        if let Some(count) = self.unspecified.filter(|&count| count > 0) {
            line += &format!(" ({count} elements unspecified)");
        }
        if let (Status::Partial, Some(what)) = (self.status, self.not_compared) {
            line += &format!("; {what} were not compared");
        }
        say!("{line}")?;
        if self.status == Status::Fail {
            say!("{:11} {}", "", self.reproduce)?;
        }
        Ok(())
    }
}

//! The report: one HTML file. Everything that a record says is escaped by the template.

use crate::output::{bytes, seconds};
use crate::report::costs;
use crate::report::plots;
use crate::report::trends::Group;
use crate::report::view::{ceiling_name, digits};
use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use wgpu_attention_bench::record::{Adapter, Case, Ceiling, CeilingKind, Record, Status};
use wgpu_attention_bench::stats::deviation_text;

const STYLE: &str = include_str!("page.css");

/// The whole file.
pub(super) fn page(records: &[Record]) -> Result<String> {
    let runs = records.iter().flat_map(|record| record.adapters.iter().map(move |adapter| (record, adapter)));
    let runs: Vec<_> = runs.collect();
    let sections = runs.iter().enumerate().map(|(n, (record, adapter))| section(n, record, adapter));
    let sections: Vec<Markup> = sections.collect::<Result<_>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "wgpu-attention: benchmark report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Attention kernels, verified and timed" }
                @if runs.len() > 1 {
                    nav { ul { @for (n, (record, adapter)) in runs.iter().enumerate() {
                        li { a href={ "#run" (n) } { (adapter.title()) } ", " (day(record)) ": " (adapter.tally()) }
                    } } }
                }
                @for section in &sections { (section) }
                @for record in records.iter().take(1) { (method(record)) }
            }
        }
    };
    Ok(page.into_string())
}

fn section(n: usize, record: &Record, adapter: &Adapter) -> Result<Markup> {
    let groups = Group::of(&adapter.cases);
    let pictures = pictures(adapter, &groups)?;
    Ok(html! {
        section id={ "run" (n) } {
            h2 { (adapter.title()) }
            @for warning in adapter.warnings(record) { p.warning { (warning) } }
            (facts(record, adapter))
            (summary(adapter))
            @for group in &groups {
                p.answer { (group.fastest_text()) }
                @if let Some(text) = group.crossings_text() { p { (text) } }
            }
            @for line in costs::lines(&adapter.cases) { p { (line) } }
            div.plots { @for picture in &pictures { (picture) } }
            @if groups.is_empty() && adapter.error.is_none() {
                p { "No two patterns were measured at two lengths: there is no plot by length." }
            }
            (ceilings(adapter))
            (cases(adapter))
        }
    })
}

/// The day of a run.
fn day(record: &Record) -> &str {
    record.date.split('T').next().unwrap_or_default()
}

/// What wgpu calls the kind of an adapter, in words.
fn kind_name(kind: &str) -> &str {
    match kind {
        "DiscreteGpu" => "discrete GPU",
        "IntegratedGpu" => "integrated GPU",
        "VirtualGpu" => "virtual GPU",
        "Cpu" => "software (a CPU)",
        other => other,
    }
}

/// What ran where.
fn facts(record: &Record, adapter: &Adapter) -> Markup {
    let host = &record.host;
    let limits = &adapter.limits;
    html! {
        dl {
            dt { "adapter" } dd { (adapter.name) ", " (kind_name(&adapter.kind)) ", " (adapter.backend) }
            dt { "driver" } dd { (adapter.driver) }
            dt { "machine" } dd { (host.cpu) ", " (host.threads) " threads, " (host.os) ", " (host.arch) }
            dt { "run" } dd {
                (record.date) ", wgpu-attention " (record.version) ", suite " (record.suite)
                @if let Some(filter) = &record.filter { ", only “" (filter) "”" }
            }
            dt { "clock" } dd {
                @match &adapter.no_timestamps {
                    Some(why) => { "wall clock: " (why) }
                    None => { "the device's timestamps where they are sound, beside the wall clock" }
                }
            }
            dt { "limits" } dd {
                (bytes(limits.max_storage_buffer_binding_size)) " per binding, "
                (bytes(limits.max_compute_workgroup_storage_size.into())) " workgroup memory, "
                (limits.max_compute_invocations_per_workgroup) " lanes per workgroup, subgroups of "
                (limits.subgroup_min_size) " to " (limits.subgroup_max_size)
            }
            dt { "features" } dd.features {
                @if adapter.features.is_empty() { "none" } @else { (adapter.features.join(", ")) }
            }
        }
    }
}

fn summary(adapter: &Adapter) -> Markup {
    let passed = adapter.cases.iter().filter_map(|case| case.verification.as_ref());
    let ratio = passed.filter(|it| it.pass).filter_map(|it| it.worst_ratio).reduce(f64::max);
    let disagree = |case: &&Case| case.hot.as_ref().is_some_and(|hot| hot.clocks_disagree);
    let disagree = adapter.cases.iter().filter(disagree).count();
    html! {
        p.summary {
            (adapter.cases.len()) " cases: " (adapter.tally()) "."
            @if let Some(ratio) = ratio {
                " Of all that passed, the largest error is " (format!("{ratio:.3}")) " of its proven bound."
            }
            @if disagree > 0 { " The two clocks disagree in " (disagree) "." }
        }
    }
}

/// Each with what it shows in words.
fn pictures(adapter: &Adapter, groups: &[Group<'_>]) -> Result<Vec<Markup>> {
    let hollow = "Hollow: unconverged.";
    let mut pictures = vec![];
    let mut add = |name: &str, svg: String, caption: String| {
        pictures.push(html! {
            figure.(name) {
                div.plot role="img" aria-label=(caption) { (PreEscaped(svg)) }
                figcaption { (caption) }
            }
        });
    };
    for group in groups {
        let title = &group.title;
        let text = format!(
            "Which pattern is fastest at which length: time, and multiple of the fastest ({title}). Empty: not measured."
        );
        add("fastest", plots::fastest(group)?, text);
        let text = format!(
            "Time against length ({title}). A ring: there a pattern overtakes full attention. {hollow}"
        );
        add("time", plots::time(group)?, text);
        let text = format!(
            "Memory on the device against length: tensors, masks, scratch ({title}). Dashed: f32 scores of all pairs of one head, \
             which no kernel here stores."
        );
        add("memory", plots::memory(group)?, text);
    }
    if let Some(svg) = plots::roofline(adapter)? {
        let text = "Roofline: dashed is what the ceilings measured in this run allow.";
        add("roofline", svg, format!("{text} {hollow}"));
    }
    if let Some(svg) = plots::peak(adapter)? {
        let text = "Share of the arithmetic peak, by kernel: bar to the best case, a mark for each.";
        add("peak", svg, format!("{text} {hollow}"));
    }
    Ok(pictures)
}

fn ceilings(adapter: &Adapter) -> Markup {
    if adapter.ceilings.is_empty() {
        return html! {};
    }
    html! {
        h3 { "Ceilings, measured before and after the cases" }
        div.wide { table {
            thead { tr { th { "ceiling" } th { "before" } th { "after" } th { "change" } } }
            tbody { @for it in &adapter.ceilings { (ceiling(it)) } }
        } }
    }
}

fn ceiling(it: &Ceiling) -> Markup {
    let value = |value: f64| match it.kind {
        CeilingKind::Launch => seconds(value),
        CeilingKind::FmaF32 | CeilingKind::FmaF16 | CeilingKind::MatrixF16 => {
            format!("{:.1} GFLOP/s", 1e-9 * value)
        }
        CeilingKind::Copy | CeilingKind::Read | CeilingKind::Workgroup => format!("{:.1} GB/s", 1e-9 * value),
    };
    let probe =
        |probe: &Option<wgpu_attention_bench::record::Probe>| probe.as_ref().map(|probe| value(probe.value));
    html! {
        tr {
            th { (ceiling_name(it.kind)) }
            @if let Some(why) = &it.why {
                td.why colspan="3" { "not measured: " (why) }
            } @else {
                td { (probe(&it.before).unwrap_or_default()) }
                td { (probe(&it.after).unwrap_or_else(|| "not measured".into())) }
                td { @if let Some(drift) = it.drift { (format!("{:+.1} %", 100.0 * drift)) } }
            }
        }
    }
}

/// Heads of the columns behind the name.
const COLUMNS: [&str; 11] = [
    "path",
    "time",
    "± %",
    "cold",
    "GFLOP/s",
    "GB/s",
    "% of roofline",
    "bound by",
    "waste",
    "error / bound",
    "memory",
];

fn cases(adapter: &Adapter) -> Markup {
    html! {
        h3 { "All cases" }
        div.wide { table.cases {
            thead { tr { th { "case" } @for column in COLUMNS { th { (column) } } th { "notes" } } }
            tbody { @for it in &adapter.cases { (case(it)) } }
        } }
    }
}

fn case(case: &Case) -> Markup {
    let class = match case.status {
        Status::Measured => "measured",
        Status::Unconverged => "unconverged",
        Status::Failed => "failed",
        Status::CannotRun => "cannot-run",
        Status::NotRun => "not-run",
        Status::Interrupted => "interrupted",
    };
    let Some(timed) = case.timed() else {
        return html! { tr.(class) { th title=[&case.score_text] { (case.name) } td.why colspan=(COLUMNS.len() + 1) { (case.notes()) } } };
    };
    let cold = case.cold.as_ref().map(|cold| seconds(cold.clock().summary.median_s));
    let ratio = case.verification.as_ref().and_then(|verification| verification.worst_ratio);
    html! {
        tr.(class) {
            th title=[&case.score_text] { (case.name) }
            td { (case.path.as_deref().unwrap_or_default()) }
            td { (seconds(timed.rates.time_s)) }
            td { (deviation_text(timed.hot.clock())) }
            td { (cold.unwrap_or_default()) }
            td { (format!("{:.2}", 1e-9 * timed.rates.useful_flop_s)) }
            td { (format!("{:.2}", 1e-9 * timed.rates.bytes_s)) }
            td { (digits(timed.rates.roofline_percent, 1)) }
            td { (timed.rates.bound_by.map(ceiling_name).unwrap_or_default()) }
            td { (digits(timed.cost.block_waste, 2)) }
            td { (digits(ratio, 3)) }
            td { (bytes(timed.cost.memory_bytes)) }
            td.why { (case.notes()) }
        }
    }
}

/// How to read it all.
fn method(record: &Record) -> Markup {
    let rules = &record.rules;
    html! {
        section {
            h2 { "How this was measured" }
            p {
                "Each case was first compared with an f64 reference, element by element, within a bound computed from its inputs; \
                 what is out of its bound is never timed. Then it was called until that stopped making it faster, and sampled at \
                 least " (rules.min_samples) " times and " (rules.min_s) " s, until median absolute deviation / median fell to "
                (100.0 * rules.deviation) " %; after " (rules.max_s) " s it is called unconverged. Clocks that differ by more \
                 than " (100.0 * rules.clocks) " % disagree; a ceiling that changes by more than " (100.0 * rules.drift)
                " % is a drift. Times are medians, with hot caches; ± is the median absolute deviation; cold: a large buffer is \
                 overwritten before each call."
            }
            dl { @for model in &record.models { dt { (model.name) } dd { (model.formula) } } }
        }
    }
}

#[cfg(test)]
mod tests;

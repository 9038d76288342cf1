//! The terms of a score, put together.

use crate::Score;
use crate::score::Rule;
use std::fmt::Write;

/// The function `score`, and what it calls.
pub(super) fn texts(score: &Score) -> Vec<String> {
    let mut text = String::from("// The terms of the score, one after the other.\n");
    text += "fn score(pairs: Pairs, products: vec4<f32>) -> vec4<f32> {\n    var s = products;\n";
    if score.rules().any(|rule| rule.may_remove()) {
        text += "    removed = vec4(false);\n";
    }
    // Relative rows are in the products.
    for rule in pair_rules(score).filter(|rule| rule.name() != "relative") {
        writeln!(text, "    s = {}_score(pairs, s);", rule.name()).expect("writing to a String succeeds");
    }
    text += "    return s;\n}\n";
    let mut texts = vec![text];
    texts.extend(pair_rules(score).map(|rule| rule.shader().into_owned()));
    if score.softcap_value().is_some() || score.customs().next().is_some() {
        texts.push(include_str!("../../shaders/lib/hyperbolic.wgsl").into());
    }
    texts
}

/// The function `begin_sums`: what a row has before its keys.
pub(super) fn rows(score: &Score) -> String {
    let of_rows = score.rules().find(|rule| rule.is_of_rows());
    let none = include_str!("../../shaders/score/no_sinks.wgsl");
    of_rows.map_or(none.into(), |rule| rule.shader().into_owned())
}

fn pair_rules(score: &Score) -> impl Iterator<Item = &dyn Rule> {
    score.rules().filter(|rule| !rule.is_of_rows())
}

/// The function `score_slope`: the derivative of `score` by the product, by the chain rule.
pub(super) fn slope(score: &Score) -> String {
    let mut text = String::from("// The slopes of the terms, each at the score before it.\n");
    text += "fn score_slope(pairs: Pairs, products: vec4<f32>) -> vec4<f32> {\n    var s = products;\n";
    text += "    var slope = vec4(1.0);\n";
    // What comes after the last term that scales has no part in it.
    let rules: Vec<_> = pair_rules(score).collect();
    let end = rules.iter().rposition(|rule| rule.scales()).map_or(0, |last| last + 1);
    for (n, rule) in rules[..end].iter().enumerate() {
        let name = rule.name();
        if rule.scales() {
            writeln!(text, "    slope *= {name}_slope(pairs, s);").expect("writing to a String succeeds");
        }
        if n + 1 < end {
            writeln!(text, "    s = {name}_score(pairs, s);").expect("writing to a String succeeds");
        }
    }
    text + "    return slope;\n}\n"
}

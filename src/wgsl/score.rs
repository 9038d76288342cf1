//! The terms of a score, put together.

use super::Header;
use crate::score::Rule;
use crate::{Score, Term};
use std::fmt::Write;

/// The end of a shader's label: the flags that hold, and the terms.
pub(super) fn suffix(flags: &[(bool, &str)], score: &Score) -> String {
    let terms = score.terms().iter().map(|term| match term {
        Term::Relative(relative) => match (relative.has_u(), relative.has_w()) {
            (false, false) => "relative",
            (true, false) => "relative-u",
            (false, true) => "relative-w",
            (true, true) => "relative-u-w",
        },
        term => term.name(),
    });
    let flags = flags.iter().filter(|flag| flag.0).map(|flag| flag.1);
    flags.chain(terms).map(|name| format!(" {name}")).collect()
}

/// What the terms' files need to know.
pub(super) fn constants(header: Header, score: &Score) -> Header {
    match score.relative() {
        Some(relative) => header.bools(&[("RELATIVE_U", relative.has_u()), ("RELATIVE_W", relative.has_w())]),
        None => header,
    }
}

/// The function `score`, and what it calls. `ends`: functions of a kernel's own that act before the first term, and behind the last.
pub(super) fn texts(score: &Score, ends: Option<[&str; 2]>) -> Vec<String> {
    let step = |name: &str| format!("    s = {name}_score(pairs, s);\n");
    let rules: Vec<_> = pair_rules(score).filter(|rule| !rule.in_product()).collect();
    let mut text = String::from("// The terms of the score, one after the other.\n");
    text += "fn score(pairs: Pairs, products: vec4<f32>) -> vec4<f32> {\n    var s = products;\n";
    if score.rules().any(|rule| rule.may_remove()) {
        text += "    removed = vec4(false);\n";
    }
    if score.rules().any(|rule| rule.may_spoil()) {
        text += "    spoilt = vec4(false);\n";
    }
    text.extend(ends.map(|ends| step(ends[0])));
    text.extend((0..rules.len()).map(|n| with_term(&rules, n)));
    text.extend(ends.map(|ends| step(ends[1])));
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

/// What stands between the weights of a row's pairs and the values: dropout, as a forward tile or a backward pass has it, or nothing.
pub(super) fn weights(score: &Score, of_score: &'static str, none: &'static str) -> Vec<String> {
    match score.dropout_term() {
        Some(dropout) => {
            let generator = include_str!("../../shaders/lib/threefry.wgsl");
            vec![generator.into(), dropout.shader().into_owned(), of_score.into()]
        }
        None => vec![none.into()],
    }
}

fn pair_rules(score: &Score) -> impl Iterator<Item = &dyn Rule> {
    score.rules().filter(|rule| rule.is_of_pairs())
}

/// The line that puts the n-th of these terms into the score. Numbers that stand one behind the other are added up first: the last of them has the
/// line of all.
fn with_term(rules: &[&dyn Rule], n: usize) -> String {
    let is_number = |n: usize| rules.get(n).is_some_and(|rule| rule.is_number());
    let name = rules[n].name();
    let has_neighbour = is_number(n + 1) || (n > 0 && is_number(n - 1));
    if !is_number(n) || !has_neighbour {
        return format!("    s = {name}_score(pairs, s);\n");
    }
    if is_number(n + 1) {
        return String::new();
    }
    let first = (0..n).rev().take_while(|n| is_number(*n)).last().unwrap_or(n);
    let numbers = rules[first..=n].iter();
    let sum =
        numbers.fold("vec4(0.0)".into(), |sum: String, rule| format!("{}_score(pairs, {sum})", rule.name()));
    format!("    s += {sum};\n")
}

/// The function `score_slope`: the derivative of `score` by the product, or by what a pair reads of a tensor, by the chain rule. `ends` as in
/// [`texts`], of which the first has a slope, and the last says what becomes of all that.
pub(super) fn slope(score: &Score, tensor: Option<&str>, ends: Option<[&str; 2]>) -> String {
    let shape = crate::AttentionShape::new(1, 1, 1, 1);
    let rules: Vec<_> = pair_rules(score).filter(|rule| !rule.in_product()).collect();
    // What comes before the term whose tensor it is has no part in the derivative.
    let own = rules.iter().position(|rule| rule.tensors(&shape).iter().any(|own| Some(own.name) == tensor));
    let factor = |n: usize| match (own, tensor) {
        (Some(own), Some(tensor)) if n <= own => (n == own).then(|| format!("by_{tensor}")),
        _ => rules[n].scales().then(|| format!("{}_slope", rules[n].name())),
    };
    let mut text = String::from("// The slopes of the terms, each at the score before it.\n");
    text += "fn score_slope(pairs: Pairs, products: vec4<f32>) -> vec4<f32> {\n    var s = products;\n";
    text += "    var slope = vec4(1.0);\n";
    // What comes after the last factor has no part in it, either.
    let end = (0..rules.len()).rposition(|n| factor(n).is_some()).map_or(0, |last| last + 1);
    if let Some([first, _]) = ends {
        text += &format!("    slope *= {first}_slope(pairs, s);\n    s = {first}_score(pairs, s);\n");
    }
    for n in 0..end {
        if let Some(factor) = factor(n) {
            writeln!(text, "    slope *= {factor}(pairs, s);").expect("writing to a String succeeds");
        }
        if n + 1 < end {
            text += &with_term(&rules, n);
        }
    }
    text.extend(ends.map(|[_, last]| format!("    slope = {last}_slope(pairs, slope);\n")));
    text + "    return slope;\n}\n"
}

/// The function `score_element`: where in a tensor the pairs read.
pub(super) fn element(tensor: &str) -> String {
    format!("fn score_element(pairs: Pairs) -> vec4<u32> {{ return at_{tensor}(pairs); }}\n")
}

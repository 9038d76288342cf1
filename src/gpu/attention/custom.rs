//! The text of the caller's own terms, checked by naga as a module of its own: what is not there cannot be reached.

use crate::score::{Custom, Rule};
use crate::{AttentionShape, Error, Result};
use naga::{Module, Statement};
use std::collections::{BTreeSet, HashSet};
use std::sync::OnceLock;

/// What a text may use beside its own tensors: no comment, no line ends.
const GIVEN: &str = "struct Pairs { batch: u32, head: u32, i: u32, j: vec4<u32>, distance: vec4<i32> } \
                     fn hyperbolic(x: vec4<f32>) -> vec4<f32> { return tanh(x); } ";

/// Checks the texts of a score's terms: each by itself, and that no two declare the same.
///
/// # Errors
/// [`Error::Argument`] with the line of the caller's text, or the name of what it may not have.
pub(super) fn check_all<'a>(customs: impl Iterator<Item = &'a Custom>, shape: &AttentionShape) -> Result<()> {
    let mut taken = HashSet::new();
    for custom in customs {
        for name in check(custom, shape)? {
            if !taken.insert(name.clone()) {
                let need = "names that no other term declares";
                return Err(Error::argument(format!("custom.{}", custom.name()), need, format!("`{name}`")));
            }
        }
    }
    Ok(())
}

/// Checks the text of a term, and gives the names that it declares.
fn check(custom: &Custom, shape: &AttentionShape) -> Result<BTreeSet<String>> {
    let (name, text) = (custom.name(), custom.text());
    let wrong = |need: &str, got: String| Error::argument(format!("custom.{name}"), need, got);
    // All on one line, so that lines are those of the caller's text.
    let mut before = GIVEN.to_owned();
    for (n, tensor) in custom.tensors(shape).iter().enumerate() {
        before += &format!("@group(0) @binding({n}) var<storage, read> {}: array<f32>; ", tensor.name);
    }
    let source = format!("{before}{text}");
    let message = |at: Option<naga::SourceLocation>, what: String| {
        let line = at.map_or(1, |at| at.line_number as usize);
        let content = text.lines().nth(line - 1).unwrap_or_default().trim();
        wrong("WGSL", format!("line {line}, `{content}`: {what}"))
    };
    let parsed = naga::front::wgsl::parse_str(&source);
    let module = parsed.map_err(|error| message(error.location(&source), error.message().to_owned()))?;
    let names = refuse(&module, custom, shape)
        .map_err(|got| wrong("functions over a pair's score and its own tensors", got))?;
    if let Some(name) = names.iter().find(|name| kernels_names().contains(*name)) {
        return Err(wrong("names that the kernels do not have", format!("`{name}`")));
    }
    let flags = naga::valid::ValidationFlags::all();
    let mut validator = naga::valid::Validator::new(flags, naga::valid::Capabilities::empty());
    validator.validate(&module).map_err(|error| {
        let mut what = error.as_inner().to_string();
        let mut cause = std::error::Error::source(error.as_inner());
        while let Some(inner) = cause {
            what += &format!(": {inner}");
            cause = inner.source();
        }
        message(error.location(&source), what)
    })?;
    Ok(names)
}

/// What the kernels declare: beside it in one module, another thing of that name would be an error of no line of the text.
fn kernels_names() -> &'static HashSet<String> {
    static NAMES: OnceLock<HashSet<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let texts = crate::wgsl::variants().into_iter().map(|shader| shader.text);
        texts.flat_map(|text| declared(&text, &["fn", "const", "struct", "var"])).collect()
    })
}

/// The names behind any of these words, and behind what a word has in angle brackets.
fn declared(text: &str, keywords: &[&str]) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut words =
        text.split_inclusive(|c: char| !is_part(c)).map(|word| word.trim_end_matches(|c| !is_part(c)));
    let mut names = vec![];
    while let Some(word) = words.next() {
        if keywords.contains(&word) {
            let mut behind = words.by_ref().filter(|word| {
                !["", "private", "workgroup", "storage", "read", "read_write", "uniform"].contains(word)
            });
            names.extend(behind.next().map(str::to_owned));
        }
    }
    names
}

/// A text whose comments are blanks.
fn without_comments(text: &str) -> String {
    let (mut out, mut rest, mut depth) = (String::new(), text, 0);
    while let Some(c) = rest.chars().next() {
        let taken = match rest {
            _ if rest.starts_with("/*") => {
                depth += 1;
                2
            }
            _ if depth > 0 && rest.starts_with("*/") => {
                depth -= 1;
                out.push(' ');
                2
            }
            _ if depth == 0 && rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ => {
                if depth == 0 {
                    out.push(c);
                }
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

/// What a text may not have, by name; otherwise the names that it declares.
fn refuse(module: &Module, custom: &Custom, shape: &AttentionShape) -> Result<BTreeSet<String>, String> {
    let own = format!("{}_", custom.name());
    if let Some(entry) = module.entry_points.first() {
        return Err(format!("the entry point `{}`", entry.name));
    }
    if let Some((_, item)) = module.overrides.iter().next() {
        return Err(format!("the override `{}`", item.name.as_deref().unwrap_or("")));
    }
    let tensors = custom.tensors(shape);
    let known = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
    for (_, variable) in module.global_variables.iter() {
        let name = variable.name.as_deref().unwrap_or("");
        if !known(name) {
            return Err(format!("the variable `{name}` of the module, of space {:?}", variable.space));
        }
    }
    let types = module.types.iter().filter_map(|(_, item)| item.name.as_deref());
    let constants = module.constants.iter().filter_map(|(_, item)| item.name.as_deref());
    let functions = module.functions.iter().filter_map(|(_, item)| item.name.as_deref());
    let given = |name: &str| ["Pairs", "hyperbolic"].contains(&name) || name.starts_with("__");
    // naga keeps the names of some aliases only.
    let aliases = declared(&without_comments(custom.text()), &["alias"]);
    let found = types.chain(constants).chain(functions).filter(|name| !given(name)).map(str::to_owned);
    let mut names: BTreeSet<String> = found.chain(aliases).collect();
    names.extend(tensors.iter().map(|tensor| tensor.name.to_owned()));
    if let Some(name) = names.iter().find(|name| !name.starts_with(&own)) {
        return Err(format!("`{name}`, whose name does not begin with `{own}`"));
    }
    for function in custom.functions() {
        check_function(module, &function, true)?;
    }
    for function in custom.indices() {
        check_function(module, &function, false)?;
    }
    for (_, function) in module.functions.iter() {
        if let Some(what) = function.body.iter().find_map(forbidden) {
            let name = function.name.as_deref().unwrap_or("");
            return Err(format!("{what} in `{name}`"));
        }
        let by_fragment = |x: &naga::Expression| matches!(x, naga::Expression::Derivative { .. });
        if function.expressions.iter().any(|(_, x)| by_fragment(x)) {
            let name = function.name.as_deref().unwrap_or("");
            return Err(format!("a derivative between pixels in `{name}`"));
        }
    }
    Ok(names)
}

/// `fn NAME(pairs: Pairs, s: vec4<f32>) -> vec4<f32>`, or of elements `fn NAME(pairs: Pairs) -> vec4<u32>`.
fn check_function(module: &Module, name: &str, of_scores: bool) -> Result<(), String> {
    let need = match of_scores {
        true => format!("fn {name}(pairs: Pairs, s: vec4<f32>) -> vec4<f32>"),
        false => format!("fn {name}(pairs: Pairs) -> vec4<u32>"),
    };
    let found = module.functions.iter().find(|(_, function)| function.name.as_deref() == Some(name));
    let Some((_, function)) = found else { return Err(format!("no `{need}`")) };
    let name_of = |ty| module.types[ty].name.as_deref();
    let is_four = |ty, scalar| {
        let four = naga::TypeInner::Vector { size: naga::VectorSize::Quad, scalar };
        module.types[ty].inner == four
    };
    let fits = match &function.arguments[..] {
        [pairs, s] => of_scores && name_of(pairs.ty) == Some("Pairs") && is_four(s.ty, naga::Scalar::F32),
        [pairs] => !of_scores && name_of(pairs.ty) == Some("Pairs"),
        _ => false,
    };
    let scalar = if of_scores { naga::Scalar::F32 } else { naga::Scalar::U32 };
    let returns = function.result.as_ref().is_some_and(|result| is_four(result.ty, scalar));
    if fits && returns { Ok(()) } else { Err(format!("another `{name}` than `{need}`")) }
}

/// Statements that have effects beyond the score.
fn forbidden(statement: &Statement) -> Option<&'static str> {
    let within = |block: &naga::Block| block.iter().find_map(forbidden);
    match statement {
        Statement::ControlBarrier(_) | Statement::MemoryBarrier(_) => Some("a barrier"),
        Statement::WorkGroupUniformLoad { .. } => Some("a load with a barrier"),
        Statement::Atomic { .. } | Statement::ImageAtomic { .. } => Some("an atomic operation"),
        Statement::Kill => Some("a `discard`"),
        Statement::Block(block) => within(block),
        Statement::If { accept, reject, .. } => within(accept).or_else(|| within(reject)),
        Statement::Switch { cases, .. } => cases.iter().find_map(|case| within(&case.body)),
        Statement::Loop { body, continuing, .. } => within(body).or_else(|| within(continuing)),
        Statement::SubgroupBallot { .. }
        | Statement::SubgroupGather { .. }
        | Statement::SubgroupCollectiveOperation { .. } => Some("a subgroup operation"),
        _ => None,
    }
}

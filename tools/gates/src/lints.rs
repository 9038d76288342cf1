//! What every compiler takes and some device gets wrong.

use std::fmt;

use naga::{
    AddressSpace, Arena, BinaryOperator, Expression, Function, Handle, Literal, Module, ScalarKind,
    Statement, TypeInner,
};

use crate::module::functions;
use crate::{Parsed, exchange, loops, uniformity};

/// WebGPU's default for storage buffers a shader stage.
const STORAGE_BINDINGS: usize = 8;
/// The constants in which a shader says how much workgroup memory its tile takes, each with the bytes of one: vectors of its
/// arena, words that note keys, and what lies beside. Without an arena nothing is said.
const ARENA: (&str, u32) = ("ARENA", 16);
const NOTES: (&str, u32) = ("STRANGE_WORDS", 4);
const BESIDE: (&str, u32) = ("BESIDE_BYTES", 1);

/// What a lint found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A constant that is not a finite number: WGSL may assume that there are none, and Metal does.
    NotFinite(String),
    /// A choice by arithmetic, a m + b (1 - m) or x + select(-1e10, 0, c), instead of `select`: miscompiled on Metal, and
    /// NaN or infinity gets through.
    ArithmeticMask(String),
    /// More storage buffers than every device has.
    Bindings(usize),
    /// Workgroup memory other than what the tile says, or more than there may be.
    WorkgroupMemory {
        /// Bytes of all workgroup variables.
        bytes: u32,
        /// Bytes that there should be, or at most.
        declared: u32,
    },
    /// A barrier that only some lanes of a workgroup may reach.
    NonUniformBarrier(String),
    /// Workgroup memory that matrices and lanes exchange values through, without a barrier between.
    Exchange(String),
    /// A loop other than a counted one.
    Loop(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite(place) => write!(f, "{place}: a constant that is not finite"),
            Self::ArithmeticMask(place) => write!(f, "{place}: a choice by arithmetic instead of `select`"),
            Self::Bindings(count) => write!(f, "{count} storage buffers, {STORAGE_BINDINGS} at most"),
            Self::WorkgroupMemory { bytes, declared } => {
                write!(f, "{bytes} bytes of workgroup memory; declared or allowed: {declared}")
            }
            Self::NonUniformBarrier(place) => write!(f, "{place}: a barrier that only some lanes may reach"),
            Self::Exchange(what) => write!(f, "{what}, without a barrier between"),
            Self::Loop(place) => write!(f, "{place}: a loop that is not counted"),
        }
    }
}

/// Everything that is wrong with a shader that may use this much workgroup memory.
pub fn lint(parsed: &Parsed, workgroup_bytes: u32) -> Vec<Fault> {
    let module = &parsed.module;
    let mut faults = Vec::new();
    if has_not_finite(module, &module.global_expressions) {
        faults.push(Fault::NotFinite("a constant".into()));
    }
    for function in functions(parsed) {
        let name = function.name.as_deref().unwrap_or("?");
        if has_not_finite(module, &function.expressions) {
            faults.push(Fault::NotFinite(name.into()));
        }
        faults.extend((0..loops::uncounted(function)).map(|_| Fault::Loop(name.into())));
        if masks_by_arithmetic(parsed, function) {
            faults.push(Fault::ArithmeticMask(name.into()));
        }
    }
    faults.extend(bindings(parsed));
    faults.extend(workgroup_memory(parsed, workgroup_bytes));
    faults.extend(uniformity::barriers(parsed).into_iter().map(Fault::NonUniformBarrier));
    faults.extend(exchange::races(parsed).into_iter().map(Fault::Exchange));
    faults
}

/// Whether there is a literal that is not finite, or the bits of one.
fn has_not_finite(module: &Module, expressions: &Arena<Expression>) -> bool {
    let is_bad = |expression: &Expression| match *expression {
        Expression::Literal(Literal::F16(x)) => !x.is_finite(),
        Expression::Literal(Literal::F32(x)) => !x.is_finite(),
        Expression::Literal(Literal::F64(x)) => !x.is_finite(),
        Expression::As { expr, kind: ScalarKind::Float, convert: None } => {
            bits(module, expressions, expr).is_some_and(|bits| !f32::from_bits(bits).is_finite())
        }
        _ => false,
    };
    expressions.iter().any(|(_, expression)| is_bad(expression))
}

/// An integer that is known, or a vector of one.
fn bits(module: &Module, expressions: &Arena<Expression>, expression: Handle<Expression>) -> Option<u32> {
    match expressions[expression] {
        Expression::Literal(Literal::U32(bits)) => Some(bits),
        Expression::Literal(Literal::I32(bits)) => Some(bits as u32),
        Expression::Splat { value, .. } => bits(module, expressions, value),
        Expression::Constant(constant) => {
            bits(module, &module.global_expressions, module.constants[constant].init)
        }
        _ => None,
    }
}

/// Whether a number made of a condition takes part in arithmetic on floats.
fn masks_by_arithmetic(parsed: &Parsed, function: &Function) -> bool {
    let masks = Masks { parsed, function, stored: stored_values(&function.body) };
    let is_arithmetic =
        |op| matches!(op, BinaryOperator::Add | BinaryOperator::Subtract | BinaryOperator::Multiply);
    function.expressions.iter().any(|(_, expression)| match *expression {
        Expression::Binary { op, left, right } if is_arithmetic(op) => {
            masks.is_mask(left, op) || masks.is_mask(right, op)
        }
        // fma(a, mask, b)
        Expression::Math { fun: naga::MathFunction::Fma, arg, arg1: Some(arg1), .. } => {
            masks.is_mask(arg, BinaryOperator::Multiply) || masks.is_mask(arg1, BinaryOperator::Multiply)
        }
        _ => false,
    })
}

/// Values stored to local variables.
fn stored_values(block: &naga::Block) -> Vec<(Handle<Expression>, Handle<Expression>)> {
    let mut found = Vec::new();
    uniformity::each_statement(block, &mut |statement| {
        if let Statement::Store { pointer, value } = *statement {
            found.push((pointer, value));
        }
    });
    found
}

struct Masks<'a> {
    parsed: &'a Parsed,
    function: &'a Function,
    stored: Vec<(Handle<Expression>, Handle<Expression>)>,
}

impl Masks<'_> {
    /// Whether an expression is a number made of a condition: f32(bool); select between constants of which one is 1 and the
    /// other 0, as a factor; or of which one is 0 and the other huge, as a summand.
    fn is_mask(&self, expression: Handle<Expression>, used_in: BinaryOperator) -> bool {
        let expressions = &self.function.expressions;
        match expressions[expression] {
            Expression::As { expr, kind: ScalarKind::Float, convert: Some(_) } => self.is_bool(expr),
            Expression::Splat { value, .. } => self.is_mask(value, used_in),
            Expression::Select { accept, reject, .. } => match (self.constant(accept), self.constant(reject))
            {
                (Some(a), Some(b)) if used_in == BinaryOperator::Multiply => {
                    a.min(b) == 0.0 && a.max(b) == 1.0
                }
                (Some(a), Some(b)) => a * b == 0.0 && a.abs().max(b.abs()) >= 1e3,
                _ => false,
            },
            // 1 - m
            Expression::Binary { op: BinaryOperator::Subtract, left, right } => {
                self.constant(left) == Some(1.0) && self.is_mask(right, BinaryOperator::Multiply)
            }
            Expression::Load { pointer } if matches!(expressions[pointer], Expression::LocalVariable(_)) => {
                // Through a variable: pointers to the same one may be several expressions.
                let same = |other: Handle<Expression>| match (&expressions[pointer], &expressions[other]) {
                    (Expression::LocalVariable(a), Expression::LocalVariable(b)) => a == b,
                    _ => false,
                };
                let mut stored = self.stored.iter().filter(|(to, _)| same(*to)).map(|(_, value)| *value);
                stored.any(|value| {
                    // A variable that is summed up in itself is not followed.
                    !matches!(expressions[value], Expression::Binary { .. }) && self.is_mask(value, used_in)
                })
            }
            _ => false,
        }
    }

    fn is_bool(&self, expression: Handle<Expression>) -> bool {
        let functions = self
            .parsed
            .module
            .functions
            .iter()
            .map(|(handle, function)| (function, &self.parsed.info[handle]));
        let points = self.parsed.module.entry_points.iter().enumerate();
        let points = points.map(|(n, point)| (&point.function, self.parsed.info.get_entry_point(n)));
        let info = functions.chain(points).find(|(function, _)| std::ptr::eq(*function, self.function));
        let Some((_, info)) = info else { return false };
        match info[expression].ty.inner_with(&self.parsed.module.types) {
            TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } => scalar.kind == ScalarKind::Bool,
            _ => false,
        }
    }

    /// A float that is known, or a vector of one.
    fn constant(&self, expression: Handle<Expression>) -> Option<f64> {
        let module = &self.parsed.module;
        constant_in(module, &self.function.expressions, expression)
    }
}

fn constant_in(
    module: &Module,
    expressions: &Arena<Expression>,
    expression: Handle<Expression>,
) -> Option<f64> {
    match expressions[expression] {
        Expression::Literal(Literal::F32(x)) => Some(x.into()),
        Expression::Literal(Literal::AbstractFloat(x)) => Some(x),
        Expression::Literal(Literal::F16(x)) => Some(f32::from(x).into()),
        Expression::Splat { value, .. } => constant_in(module, expressions, value),
        Expression::Constant(handle) => {
            constant_in(module, &module.global_expressions, module.constants[handle].init)
        }
        Expression::Compose { ref components, .. } => {
            let all: Option<Vec<f64>> =
                components.iter().map(|&component| constant_in(module, expressions, component)).collect();
            let all = all?;
            all.iter().all(|x| *x == all[0]).then(|| all[0])
        }
        _ => None,
    }
}

/// Storage buffers beyond what every device has.
fn bindings(parsed: &Parsed) -> Option<Fault> {
    let variables = parsed.module.global_variables.iter();
    let count =
        variables.filter(|(_, variable)| matches!(variable.space, AddressSpace::Storage { .. })).count();
    (count > STORAGE_BINDINGS).then_some(Fault::Bindings(count))
}

/// Workgroup memory beyond the limit, or other than what the tile declares.
fn workgroup_memory(parsed: &Parsed, limit: u32) -> Option<Fault> {
    let module = &parsed.module;
    let used = parsed.info.get_entry_point(parsed.entry_index());
    let variables = module
        .global_variables
        .iter()
        .filter(|(handle, variable)| variable.space == AddressSpace::WorkGroup && !used[*handle].is_empty());
    let context = module.to_ctx();
    let bytes = variables.map(|(_, variable)| module.types[variable.ty].inner.size(context)).sum();
    let declared = |(name, bytes): (&str, u32)| {
        let found = module.constants.iter().find(|(_, constant)| constant.name.as_deref() == Some(name));
        found.and_then(|(_, constant)| match module.global_expressions[constant.init] {
            Expression::Literal(Literal::U32(count)) => Some(bytes * count),
            _ => None,
        })
    };
    let arena =
        declared(ARENA).map(|bytes| bytes + [NOTES, BESIDE].into_iter().filter_map(declared).sum::<u32>());
    let fits = bytes <= limit && arena.is_none_or(|declared| bytes == declared);
    (!fits).then_some(Fault::WorkgroupMemory { bytes, declared: arena.unwrap_or(limit).min(limit) })
}

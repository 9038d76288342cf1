//! Loops that are not counted. A counted loop ends by a test at its top of a variable that only its step changes: `for`, as
//! every compiler unrolls it and FXC (DirectX without DXC) compiles it in bearable time.

use std::collections::HashSet;

use naga::{Block, Expression, Function, Handle, LocalVariable, Statement};

use crate::uniformity::each_statement;

/// How many loops of a function are not counted.
pub(crate) fn uncounted(function: &Function) -> usize {
    let mut count = 0;
    each_statement(&function.body, &mut |statement| {
        if let Statement::Loop { body, continuing, break_if } = statement {
            count += usize::from(break_if.is_some() || !is_counted(function, body, continuing));
        }
    });
    count
}

/// Whether a loop is what naga makes of a `for` whose step, and nothing else, changes a variable of its condition.
fn is_counted(function: &Function, body: &Block, step: &Block) -> bool {
    let first = body.iter().find(|statement| !matches!(statement, Statement::Emit(_)));
    let Some(Statement::If { condition, accept, reject }) = first else { return false };
    let leaves = accept.is_empty() && matches!(reject.first(), Some(Statement::Break));
    let (stepped, changed) = (stored(function, step), stored(function, body));
    leaves
        && read(function, *condition).iter().any(|local| stepped.contains(local) && !changed.contains(local))
}

/// The variables that a block may change: those stored to, and those whose pointers are passed to functions.
fn stored(function: &Function, block: &Block) -> HashSet<Handle<LocalVariable>> {
    let mut found = HashSet::new();
    each_statement(block, &mut |statement| match statement {
        Statement::Store { pointer, .. } => found.extend(variable(function, *pointer)),
        Statement::Call { arguments, .. } => {
            found.extend(arguments.iter().filter_map(|&argument| variable(function, argument)));
        }
        _ => {}
    });
    found
}

/// The variable that a pointer leads to.
fn variable(function: &Function, pointer: Handle<Expression>) -> Option<Handle<LocalVariable>> {
    match function.expressions[pointer] {
        Expression::LocalVariable(local) => Some(local),
        Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => variable(function, base),
        _ => None,
    }
}

/// The variables that a condition reads.
fn read(function: &Function, condition: Handle<Expression>) -> Vec<Handle<LocalVariable>> {
    match function.expressions[condition] {
        Expression::Load { pointer } => variable(function, pointer).into_iter().collect(),
        Expression::Binary { left, right, .. } => [read(function, left), read(function, right)].concat(),
        Expression::Unary { expr, .. } | Expression::As { expr, .. } => read(function, expr),
        _ => Vec::new(),
    }
}

//! Workgroup memory that cooperative matrices and lanes exchange values through, without a barrier between.
//!
//! No interpreter knows matrices, so no run finds such a race for sure. Here: each variable of workgroup memory that a matrix is
//! loaded from or stored to is followed along all ways through the kernel, calls included. What touched it since the last barrier is kept, and
//! an access that needs a barrier behind one of those is a fault. Which elements are touched is not looked at, so what lanes
//! do with places of their own must be told: a load of the very place that the function stores to is a part of the store, and a store
//! behind loads is taken for one to what the lane has read itself.

use std::collections::{BTreeMap, BTreeSet};

use naga::{AddressSpace, Block, Expression, Function, GlobalVariable, Handle, Statement};

use crate::{Parsed, uniformity};

/// How a variable is touched: bits of a set.
const READ: u8 = 1;
const WRITTEN: u8 = 2;
const LOADED: u8 = 4;
const STORED: u8 = 8;

/// Each way to touch it, in words, and those before it that need a barrier between.
const NEEDS: [(u8, &str, u8); 4] = [
    (READ, "read", WRITTEN | STORED),
    (WRITTEN, "written", LOADED | STORED),
    (LOADED, "loaded into a matrix", WRITTEN | STORED),
    (STORED, "stored from a matrix", READ | WRITTEN | LOADED),
];

/// Accesses that lack a barrier before them, in words.
pub(crate) fn races(parsed: &Parsed) -> Vec<String> {
    let mut walk = Walk { parsed, exchanged: exchanged(parsed), found: BTreeSet::new() };
    let entry = &parsed.entry().function;
    walk.function(entry, Touched::new());
    walk.found.into_iter().collect()
}

/// What touched each variable since the last barrier.
type Touched = BTreeMap<Handle<GlobalVariable>, u8>;

/// The variables of workgroup memory that matrices are loaded from or stored to.
fn exchanged(parsed: &Parsed) -> BTreeSet<Handle<GlobalVariable>> {
    let mut found = BTreeSet::new();
    for function in crate::module::functions(parsed) {
        let mut note = |pointer| found.extend(workgroup_variable(parsed, function, pointer));
        for (_, expression) in function.expressions.iter() {
            if let Expression::CooperativeLoad { data, .. } = expression {
                note(data.pointer);
            }
        }
        uniformity::each_statement(&function.body, &mut |statement| {
            if let Statement::CooperativeStore { data, .. } = statement {
                note(data.pointer);
            }
        });
    }
    found
}

/// The variable that a pointer leads to.
fn workgroup_variable(
    parsed: &Parsed,
    function: &Function,
    pointer: Handle<Expression>,
) -> Option<Handle<GlobalVariable>> {
    match function.expressions[pointer] {
        Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
            workgroup_variable(parsed, function, base)
        }
        Expression::GlobalVariable(variable) => {
            let space = parsed.module.global_variables[variable].space;
            (space == AddressSpace::WorkGroup).then_some(variable)
        }
        _ => None,
    }
}

/// Ways on from a block: behind it, and out of the loop or the function around it; none where no way leads there.
#[derive(Default)]
struct Ways {
    on: Option<Touched>,
    breaks: Option<Touched>,
    continues: Option<Touched>,
    returns: Option<Touched>,
}

/// Both ways lead here.
fn joined(one: Option<Touched>, other: Option<Touched>) -> Option<Touched> {
    let (Some(mut one), Some(other)) = (one.clone(), other.clone()) else { return one.or(other) };
    other.into_iter().for_each(|(variable, ways)| *one.entry(variable).or_default() |= ways);
    Some(one)
}

struct Walk<'a> {
    parsed: &'a Parsed,
    exchanged: BTreeSet<Handle<GlobalVariable>>,
    found: BTreeSet<String>,
}

impl Walk<'_> {
    /// Walks a function; what is touched when it ends.
    fn function(&mut self, function: &Function, before: Touched) -> Touched {
        let Ways { on, returns, .. } = self.block(function, &function.body, Some(before));
        joined(on, returns).unwrap_or_default()
    }

    fn block(&mut self, function: &Function, block: &Block, before: Option<Touched>) -> Ways {
        let mut ways = Ways { on: before, ..Ways::default() };
        for statement in block {
            let Some(touched) = ways.on.take() else { return ways };
            let Ways { on, breaks, continues, returns } = self.statement(function, statement, touched);
            ways.on = on;
            ways.breaks = joined(ways.breaks, breaks);
            ways.continues = joined(ways.continues, continues);
            ways.returns = joined(ways.returns, returns);
        }
        ways
    }

    fn statement(&mut self, function: &Function, statement: &Statement, mut touched: Touched) -> Ways {
        match statement {
            Statement::Block(block) => return self.block(function, block, Some(touched)),
            Statement::If { accept, reject, .. } => {
                return self.either(function, [accept, reject].into_iter(), touched);
            }
            Statement::Switch { cases, .. } => {
                let Ways { on, breaks, continues, returns } =
                    self.either(function, cases.iter().map(|case| &case.body), touched);
                return Ways { on: joined(on, breaks), breaks: None, continues, returns };
            }
            Statement::Loop { body, continuing, .. } => {
                return self.repeated(function, [body, continuing], touched);
            }
            Statement::Break => return Ways { breaks: Some(touched), ..Ways::default() },
            Statement::Continue => return Ways { continues: Some(touched), ..Ways::default() },
            Statement::Return { .. } | Statement::Kill => {
                return Ways { returns: Some(touched), ..Ways::default() };
            }
            Statement::Emit(range) => {
                for expression in range.clone() {
                    self.expression(function, expression, &mut touched);
                }
            }
            Statement::Store { pointer, .. } => self.touch(function, *pointer, WRITTEN, &mut touched),
            Statement::CooperativeStore { data, .. } => {
                self.touch(function, data.pointer, STORED, &mut touched);
            }
            Statement::ControlBarrier(barrier) if barrier.contains(naga::Barrier::WORK_GROUP) => {
                touched.clear()
            }
            Statement::WorkGroupUniformLoad { .. } => touched.clear(),
            Statement::Call { function: called, .. } => {
                touched = self.function(&self.parsed.module.functions[*called], touched);
            }
            _ => {}
        }
        Ways { on: Some(touched), ..Ways::default() }
    }

    /// One of several blocks is taken.
    fn either<'b>(
        &mut self,
        function: &Function,
        blocks: impl Iterator<Item = &'b Block>,
        touched: Touched,
    ) -> Ways {
        let mut all = Ways::default();
        for block in blocks {
            let ways = self.block(function, block, Some(touched.clone()));
            all.on = joined(all.on, ways.on);
            all.breaks = joined(all.breaks, ways.breaks);
            all.continues = joined(all.continues, ways.continues);
            all.returns = joined(all.returns, ways.returns);
        }
        all
    }

    /// A loop, until a turn adds nothing to what is touched when it begins.
    fn repeated(&mut self, function: &Function, [body, continuing]: [&Block; 2], touched: Touched) -> Ways {
        let mut begins = Some(touched);
        loop {
            let turn = self.block(function, body, begins.clone());
            let end = self.block(function, continuing, joined(turn.on, turn.continues));
            let again = joined(begins.clone(), end.on.clone());
            if again == begins {
                // `break_if` leaves at the end of a turn.
                return Ways { on: joined(turn.breaks, end.on), returns: turn.returns, ..Ways::default() };
            }
            begins = again;
        }
    }

    fn expression(&mut self, function: &Function, expression: Handle<Expression>, touched: &mut Touched) {
        match function.expressions[expression] {
            Expression::Load { pointer } if !is_stored_to(function, pointer) => {
                self.touch(function, pointer, READ, touched);
            }
            Expression::CooperativeLoad { ref data, .. } => {
                self.touch(function, data.pointer, LOADED, touched);
            }
            _ => {}
        }
    }

    /// Notes an access, and whether it comes too early.
    fn touch(&mut self, function: &Function, pointer: Handle<Expression>, how: u8, touched: &mut Touched) {
        let variable = workgroup_variable(self.parsed, function, pointer);
        let Some(variable) = variable.filter(|one| self.exchanged.contains(one)) else { return };
        let before = touched.entry(variable).or_default();
        let words = |set: u8| {
            let named = NEEDS.iter().filter(|(one, ..)| set & one != 0).map(|(_, word, _)| *word);
            named.collect::<Vec<_>>().join(" and ")
        };
        let too_early = NEEDS.iter().filter(|(one, ..)| *one == how).fold(0, |all, (.., needs)| all | needs);
        if *before & too_early != 0 {
            let name = self.parsed.module.global_variables[variable].name.as_deref().unwrap_or("?");
            let place = function.name.as_deref().unwrap_or("?");
            let (now, then) = (words(how), words(*before & too_early));
            self.found.insert(format!("{place}: `{name}` is {now} after it was {then}"));
        }
        *before |= how;
    }
}

/// Whether the function stores to this very place.
fn is_stored_to(function: &Function, pointer: Handle<Expression>) -> bool {
    let mut found = false;
    uniformity::each_statement(&function.body, &mut |statement| {
        found |= matches!(statement, Statement::Store { pointer: to, .. } if *to == pointer);
    });
    found
}

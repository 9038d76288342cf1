//! Barriers that only some of a workgroup's lanes may reach.
//!
//! naga does not look, Tint does. Here: a value is *varying* if lanes of a workgroup may differ in it (it comes from the
//! lane's number, from memory that is written, from an atomic, or was assigned where lanes had parted); lanes part at
//! a branch over a varying value, and meet again behind it, unless some of them left the loop or the function. That is kept for
//! whole variables, and for each function by which of its arguments vary and whether lanes had parted at the call: what it
//! passes is uniform, what it refuses may be.

use std::collections::HashSet;

use naga::{
    AddressSpace, Binding, Block, BuiltIn, Expression, Function, GlobalVariable, Handle, LocalVariable,
    Statement, StorageAccess,
};

use crate::Parsed;

/// Functions in which a barrier may be reached by some lanes only.
pub(crate) fn barriers(parsed: &Parsed) -> Vec<String> {
    let mut facts = Facts::default();
    facts.id_of(Context { function: None, varying: vec![], parted: false });
    // Facts only grow, and there are finitely many.
    loop {
        let before = facts.len();
        // A walk may find more contexts.
        let mut id = 0;
        while id < facts.contexts.len() {
            Walk::new(parsed, &mut facts, id).run();
            id += 1;
        }
        if facts.len() == before {
            break;
        }
    }
    let mut names: Vec<String> = facts.parted_barriers.into_iter().collect();
    names.sort();
    names
}

/// Calls `look` with every statement of a block, those inside others too.
pub(crate) fn each_statement(block: &Block, look: &mut dyn FnMut(&Statement)) {
    for statement in block {
        look(statement);
        match statement {
            Statement::Block(block) => each_statement(block, look),
            Statement::If { accept, reject, .. } => {
                each_statement(accept, look);
                each_statement(reject, look);
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| each_statement(&case.body, look)),
            Statement::Loop { body, continuing, .. } => {
                each_statement(body, look);
                each_statement(continuing, look);
            }
            _ => {}
        }
    }
}

/// Number of a [`Context`].
type Id = usize;

/// How a function is called.
#[derive(Debug, Clone, PartialEq)]
struct Context {
    /// `None` is the entry point.
    function: Option<Handle<Function>>,
    /// Which arguments vary, or what they point to.
    varying: Vec<bool>,
    /// Whether lanes have parted at the call.
    parted: bool,
}

/// What is known so far.
#[derive(Default)]
struct Facts {
    contexts: Vec<Context>,
    varying_locals: HashSet<(Id, Handle<LocalVariable>)>,
    varying_globals: HashSet<Handle<GlobalVariable>>,
    /// What parameters point to, beyond what the context says.
    varying_parameters: HashSet<(Id, u32)>,
    varying_results: HashSet<Id>,
    parted_barriers: HashSet<String>,
}

impl Facts {
    fn len(&self) -> usize {
        self.contexts.len()
            + self.varying_locals.len()
            + self.varying_globals.len()
            + self.varying_parameters.len()
            + self.varying_results.len()
            + self.parted_barriers.len()
    }

    fn id_of(&mut self, context: Context) -> Id {
        let known = self.contexts.iter().position(|other| *other == context);
        known.unwrap_or_else(|| {
            self.contexts.push(context);
            self.contexts.len() - 1
        })
    }
}

/// Ways in which some lanes leave a block before the others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Exits {
    loops: bool,
    function: bool,
}

impl std::ops::BitOrAssign for Exits {
    fn bitor_assign(&mut self, other: Self) {
        self.loops |= other.loops;
        self.function |= other.function;
    }
}

/// A walk over a function with what is known.
struct Walk<'a> {
    parsed: &'a Parsed,
    facts: &'a mut Facts,
    id: Id,
    function: &'a Function,
    /// Results of atomics and of calls in this function.
    varying: HashSet<Handle<Expression>>,
}

impl<'a> Walk<'a> {
    fn new(parsed: &'a Parsed, facts: &'a mut Facts, id: Id) -> Self {
        let entry = &parsed.entry().function;
        let function = facts.contexts[id].function.map_or(entry, |handle| &parsed.module.functions[handle]);
        Self { parsed, facts, id, function, varying: HashSet::new() }
    }

    fn run(&mut self) {
        let parted = self.facts.contexts[self.id].parted;
        let locals = self.function.local_variables.iter();
        for (handle, variable) in locals {
            if variable.init.is_some_and(|init| self.is_varying(init)) {
                self.facts.varying_locals.insert((self.id, handle));
            }
        }
        let function = self.function;
        self.block(&function.body, parted);
    }

    /// Whether lanes may differ in a value; of a pointer, in what it points to.
    fn is_varying(&self, expression: Handle<Expression>) -> bool {
        if self.varying.contains(&expression) {
            return true;
        }
        let any = |list: &[Handle<Expression>]| list.iter().any(|&one| self.is_varying(one));
        match self.function.expressions[expression] {
            Expression::FunctionArgument(n) => {
                let argument = &self.function.arguments[n as usize];
                let builtin = match argument.binding {
                    Some(Binding::BuiltIn(builtin)) => !is_uniform(builtin),
                    Some(Binding::Location { .. }) => true,
                    None => {
                        let context = &self.facts.contexts[self.id];
                        // Of the entry point: a struct of builtins.
                        context.function.is_none() || context.varying[n as usize]
                    }
                };
                builtin || self.facts.varying_parameters.contains(&(self.id, n))
            }
            Expression::LocalVariable(handle) => self.facts.varying_locals.contains(&(self.id, handle)),
            Expression::GlobalVariable(handle) => match self.parsed.module.global_variables[handle].space {
                AddressSpace::Uniform | AddressSpace::Immediate => false,
                AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
                AddressSpace::Private => self.facts.varying_globals.contains(&handle),
                _ => true,
            },
            // What a call or an atomic gives is in `varying` if it varies; a uniform load does not.
            Expression::CallResult(_) | Expression::WorkGroupUniformLoadResult { .. } => false,
            Expression::AtomicResult { .. } => true,
            Expression::Literal(_)
            | Expression::Constant(_)
            | Expression::Override(_)
            | Expression::ZeroValue(_) => false,
            Expression::Compose { ref components, .. } => any(components),
            Expression::Access { base, index } => any(&[base, index]),
            Expression::AccessIndex { base, .. } => any(&[base]),
            Expression::Splat { value, .. } => any(&[value]),
            Expression::Swizzle { vector, .. } => any(&[vector]),
            Expression::Load { pointer } => any(&[pointer]),
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => any(&[expr]),
            Expression::Binary { left, right, .. } => any(&[left, right]),
            Expression::Select { condition, accept, reject } => any(&[condition, accept, reject]),
            Expression::Relational { argument, .. } => any(&[argument]),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                any(&[Some(arg), arg1, arg2, arg3].into_iter().flatten().collect::<Vec<_>>())
            }
            Expression::ArrayLength(_) => false,
            // Subgroups, matrices, textures: not followed.
            _ => true,
        }
    }

    /// Walks a block; `parted` says whether the lanes have parted before it. Returns how some of them leave it.
    fn block(&mut self, block: &Block, parted: bool) -> Exits {
        let mut exits = Exits::default();
        for statement in block {
            let parted = parted || exits.loops || exits.function;
            exits |= self.statement(statement, parted);
        }
        exits
    }

    fn statement(&mut self, statement: &Statement, parted: bool) -> Exits {
        match statement {
            Statement::Block(block) => return self.block(block, parted),
            Statement::If { condition, accept, reject } => {
                let parted = parted || self.is_varying(*condition);
                let mut exits = self.block(accept, parted);
                exits |= self.block(reject, parted);
                return exits;
            }
            Statement::Switch { selector, cases } => {
                let parted = parted || self.is_varying(*selector);
                let mut exits = Exits::default();
                cases.iter().for_each(|case| exits |= self.block(&case.body, parted));
                // A `break` in a switch ends the switch: `continue` is the rare one, and is taken for it.
                return exits;
            }
            Statement::Loop { body, continuing, break_if } => {
                // Once as if nobody left early; if some do, again, for the rounds that only the others make.
                let mut parted = parted;
                loop {
                    let mut exits = self.block(body, parted);
                    exits |= self.block(continuing, parted || exits.loops || exits.function);
                    let leaves = break_if.is_some_and(|condition| self.is_varying(condition));
                    let part = exits.loops || exits.function || leaves;
                    if parted || !part {
                        return Exits { loops: false, function: exits.function };
                    }
                    parted = true;
                }
            }
            Statement::Break | Statement::Continue => return Exits { loops: parted, function: false },
            Statement::Return { value } => {
                if parted || value.is_some_and(|value| self.is_varying(value)) {
                    self.facts.varying_results.insert(self.id);
                }
                return Exits { loops: false, function: parted };
            }
            Statement::Kill => return Exits { loops: false, function: true },
            Statement::ControlBarrier(_) => self.barrier(parted),
            Statement::WorkGroupUniformLoad { .. } => self.barrier(parted),
            Statement::Store { pointer, value }
                if parted || self.is_varying(*value) || self.is_place_varying(*pointer) =>
            {
                self.part_pointee(*pointer);
            }
            Statement::Atomic { result: Some(result), .. } => drop(self.varying.insert(*result)),
            Statement::Call { function, arguments, result } => {
                self.call(*function, arguments, *result, parted);
            }
            _ => {}
        }
        Exits::default()
    }

    fn barrier(&mut self, parted: bool) {
        if parted {
            self.facts.parted_barriers.insert(self.name());
        }
    }

    fn call(
        &mut self,
        callee: Handle<Function>,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
        parted: bool,
    ) {
        let varying = arguments.iter().map(|&argument| self.is_varying(argument)).collect();
        let called = self.facts.id_of(Context { function: Some(callee), varying, parted });
        for (n, &argument) in (0..).zip(arguments) {
            // What the callee stores through a pointer.
            if self.facts.varying_parameters.contains(&(called, n)) {
                self.part_pointee(argument);
            }
        }
        if let Some(result) = result.filter(|_| self.facts.varying_results.contains(&called)) {
            self.varying.insert(result);
        }
    }

    /// Whether lanes store to different elements.
    fn is_place_varying(&self, pointer: Handle<Expression>) -> bool {
        match self.function.expressions[pointer] {
            Expression::Access { base, index } => self.is_varying(index) || self.is_place_varying(base),
            Expression::AccessIndex { base, .. } => self.is_place_varying(base),
            _ => false,
        }
    }

    /// Lanes differ in the variable that a pointer leads to.
    fn part_pointee(&mut self, pointer: Handle<Expression>) {
        match self.function.expressions[pointer] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.part_pointee(base),
            Expression::LocalVariable(handle) => drop(self.facts.varying_locals.insert((self.id, handle))),
            Expression::GlobalVariable(handle) => drop(self.facts.varying_globals.insert(handle)),
            Expression::FunctionArgument(n) => drop(self.facts.varying_parameters.insert((self.id, n))),
            _ => {}
        }
    }

    fn name(&self) -> String {
        self.function.name.clone().unwrap_or_else(|| self.parsed.entry().name.clone())
    }
}

/// Whether all lanes of a workgroup see the same. Its subgroups are of one size.
fn is_uniform(builtin: BuiltIn) -> bool {
    use BuiltIn::{NumWorkGroups, SubgroupSize, WorkGroupId, WorkGroupSize};
    matches!(builtin, WorkGroupId | NumWorkGroups | WorkGroupSize | SubgroupSize)
}

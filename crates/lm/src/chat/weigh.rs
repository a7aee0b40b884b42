//! Keeps the values of a template small, counting what they share once for each place where it is seen.
//!
//! `minijinja` charges a list for its own elements. One that holds the same list twice, and is held twice itself, grows by
//! doubling at a constant price, and printing or comparing it never ends; a namespace that holds itself has no end at all. So
//! every value is walked through when it is made, for a price, and is refused when it is too large or too deep. What makes its
//! elements anew whenever they are asked for, such as `zip` of two such values, becomes a list at once: a chain of them would
//! ask the first one again for each branch.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Not names that a template can write.
const WEIGH: &str = "weigh!";
const WEIGH_STORED: &str = "stored!";
/// Most values inside a value.
const MAX_VALUES: usize = 1 << 14;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;
/// Values that are walked through for a step.
const VALUES_PER_STEP: usize = 4;

/// Makes `environment` able to run what [`insert`] makes.
pub(super) fn prepare(environment: &mut Environment<'_>) {
    environment.add_filter(WEIGH, weigh);
    environment.add_filter(WEIGH_STORED, weigh_stored);
}

/// The instructions, with a check of every value that is made, compared, or stored in a namespace.
pub(super) fn insert<'s>(instructions: &Instructions<'s>) -> Instructions<'s> {
    const CHECK: Instruction<'static> = Instruction::ApplyFilter(WEIGH, Some(1), !0);
    const CHECK_STORED: Instruction<'static> = Instruction::ApplyFilter(WEIGH_STORED, Some(1), !0);
    let mut output = Instructions::new(instructions.name(), instructions.source());
    // Where each instruction now begins, and the end.
    let mut moved = Vec::new();
    let mut end = 0;
    while let Some(instruction) = instructions.get(moved.len() as u32) {
        let line = instructions.get_line(moved.len() as u32).unwrap_or(0) as u16;
        moved.push(end);
        let mut add = |instruction| end = output.add_with_line(instruction, line) + 1;
        let is_compared = matches!(
            instruction,
            Instruction::Eq
                | Instruction::Ne
                | Instruction::Gt
                | Instruction::Gte
                | Instruction::Lt
                | Instruction::Lte
                | Instruction::In
                | Instruction::CompareAndPreserve(_)
        );
        let is_made = matches!(
            instruction,
            Instruction::BuildList(_)
                | Instruction::BuildTuple(_)
                | Instruction::BuildMap(_)
                | Instruction::Slice
                | Instruction::Mul
                | Instruction::ApplyFilter(..)
                | Instruction::CallFunction(..)
                | Instruction::CallMethod(..)
                | Instruction::CallObject(_)
        );
        if matches!(instruction, Instruction::SetAttr(_)) {
            add(Instruction::Swap);
            add(CHECK_STORED);
            add(Instruction::Swap);
        }
        // No comparison goes through more than the value on top.
        if is_compared {
            add(CHECK);
        }
        add(instruction.clone());
        if is_made {
            add(CHECK);
        }
    }
    moved.push(end);
    for index in 0..end {
        let Some(instruction) = output.get_mut(index) else { break };
        if let Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) = instruction
        {
            *target = moved.get(*target as usize).copied().unwrap_or(end);
        }
    }
    output
}

fn weigh(state: &State, value: Value) -> Result<Value, Error> {
    let mut walk = Walk { state, values: 0 };
    if value.kind() != ValueKind::Iterable {
        walk.through(&value, 0)?;
        return Ok(value);
    }
    let mut items = Vec::new();
    for item in value.try_iter()? {
        walk.count()?;
        walk.through(&item, 1)?;
        items.push(item);
    }
    Ok(Value::from(items))
}

/// As [`weigh`], of what a namespace shall hold.
fn weigh_stored(state: &State, value: Value) -> Result<Value, Error> {
    if is_namespace(&value) {
        return Err(refused("a namespace cannot hold a namespace"));
    }
    weigh(state, value)
}

/// Namespaces are the only values that change, so one inside another may come to hold itself.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

struct Walk<'a> {
    state: &'a State<'a, 'a>,
    values: usize,
}

impl Walk<'_> {
    fn through(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if value.as_object().is_none() {
            return Ok(());
        }
        if depth > 0 && is_namespace(value) {
            return Err(refused("a namespace cannot be part of another value"));
        }
        if depth > MAX_DEPTH {
            return Err(refused(format!("values nested more than {MAX_DEPTH} deep are not made")));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                for item in value.try_iter()? {
                    self.count()?;
                    self.through(&item, depth + 1)?;
                }
            }
            ValueKind::Map => {
                for key in value.try_iter()? {
                    self.count()?;
                    self.through(&key, depth + 1)?;
                    self.count()?;
                    self.through(&value.get_item(&key)?, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Error> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(refused(format!("values of more than {MAX_VALUES} values are not made")));
        }
        if self.values.is_multiple_of(VALUES_PER_STEP) { self.state.consume_fuel(1) } else { Ok(()) }
    }
}

//! Compiling and running a template, with `+` replaced.
//!
//! `minijinja` adds lists without copying and without a charge, until the sum is nested 33 deep: then it builds the list, which may
//! have been doubled 33 times. So `+` becomes a call of [`add`], which pays for every element first. That is done in the compiled
//! instructions, which only the crate's unstable interface shows; its version is fixed in the manifest for that.

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Tuple, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

use super::{sandbox::charge, weigh};

/// Not a name that a template can write.
const ADD: &str = "+";
/// What an element of a list costs, in bytes.
const ELEMENT_BYTES: usize = 32;

/// Makes `environment` able to run what [`compile`] makes.
pub(super) fn prepare(environment: &mut Environment<'_>) {
    environment.add_filter(ADD, add);
    // It chains lists as `+` does, and no Jinja but this one has it.
    environment.remove_filter("chain");
    // It panics where a conversion is cut by a character of several bytes. The method `format` is missing as well.
    environment.remove_filter("format");
    environment.add_filter("sum", sum);
    weigh::prepare(environment);
}

/// The instructions of `source`, which is called `name` in errors.
pub(super) fn compile<'s>(name: &'s str, source: &'s str, syntax: &SyntaxConfig) -> Result<Instructions<'s>, Error> {
    let parsed = parse(source, name, syntax.clone())?;
    let mut generator = CodeGenerator::new(name, source);
    generator.compile_stmt(&parsed);
    // There are no blocks without the feature for several templates.
    let (mut instructions, _) = generator.finish();
    let mut index = 0;
    while let Some(instruction) = instructions.get_mut(index) {
        if matches!(instruction, Instruction::Add) {
            *instruction = Instruction::ApplyFilter(ADD, Some(2), !0);
        }
        index += 1;
    }
    Ok(weigh::insert(&instructions))
}

/// The text that `instructions` make of `variables`.
pub(super) fn run<'e>(
    environment: &'e Environment<'e>,
    instructions: &Instructions<'e>,
    variables: Value,
) -> Result<String, Error> {
    let mut text = String::new();
    let blocks = std::collections::BTreeMap::new();
    let mut output = make_string_output(&mut text);
    eval(environment, instructions, variables, &blocks, &mut output, AutoEscape::None).map(drop)?;
    Ok(text)
}

/// `a + b`: the sum of numbers, one text or list after the other.
fn add(state: &State, a: Value, b: Value) -> Result<Value, Error> {
    let is_list = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    let is_tuple = |value: &Value| value.downcast_object_ref::<Tuple>().is_some();
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        charge(state, a.len().saturating_add(b.len()))?;
        return Ok(Value::from([a, b].concat()));
    }
    if is_list(&a) && is_list(&b) && is_tuple(&a) == is_tuple(&b) {
        let elements = joined(state, &a, &b)?;
        return Ok(if is_tuple(&a) { Value::from_object(Tuple::new(elements)) } else { Value::from(elements) });
    }
    add_numbers(&a, &b).ok_or_else(|| {
        let kinds = format!("tried to use + operator on unsupported types {} and {}", a.kind(), b.kind());
        Error::new(ErrorKind::InvalidOperation, kinds)
    })
}

/// The sum of numbers; the filter of `minijinja` would join texts and lists without a charge.
fn sum(
    state: &State,
    values: Value,
    attribute: Option<&str>,
    start: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let from = match &start {
        Some(start) => Some(start.clone()),
        None => options.peek::<Option<Value>>("start")?,
    };
    if from.is_some_and(|from| !matches!(from.kind(), ValueKind::Number | ValueKind::Bool)) {
        return Err(Error::new(ErrorKind::InvalidOperation, "sum: only numbers are summed up, use `join` or `+`"));
    }
    minijinja::filters::sum(state, values, attribute, start, options)
}

/// The elements of both lists, each paid for before it is there.
fn joined(state: &State, a: &Value, b: &Value) -> Result<Vec<Value>, Error> {
    let mut elements = Vec::new();
    for list in [a, b] {
        let known = list.len();
        charge(state, known.unwrap_or(0).saturating_mul(ELEMENT_BYTES))?;
        for element in list.try_iter()? {
            if known.is_none() {
                charge(state, super::STEP_BYTES)?;
            }
            elements.push(element);
        }
    }
    Ok(elements)
}

/// The sum, exact where both are integers; `None` where it is too large or one is no number.
fn add_numbers(a: &Value, b: &Value) -> Option<Value> {
    let number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    if !number(a) || !number(b) {
        return None;
    }
    match (i128::try_from(a.clone()), i128::try_from(b.clone())) {
        (Ok(x), Ok(y)) if whole(a) && whole(b) => x.checked_add(y).map(|sum| match i64::try_from(sum) {
            Ok(small) => Value::from(small),
            Err(_) => Value::from(sum),
        }),
        _ => Some(Value::from(f64::try_from(a.clone()).ok()? + f64::try_from(b.clone()).ok()?)),
    }
}

fn whole(value: &Value) -> bool {
    value.kind() == ValueKind::Bool || value.is_integer()
}

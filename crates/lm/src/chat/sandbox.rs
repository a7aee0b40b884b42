//! What templates may call beyond `minijinja`, paid for before it runs.
//!
//! `minijinja` charges its own operators and filters against the fuel of a rendering. A method or
//! filter from outside is charged for its result only, after it exists; those here whose result or
//! work can be far larger than what they are given charge for it first.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::STEP_BYTES;

/// Deepest nesting that is written as JSON.
const MAX_JSON_DEPTH: usize = 64;
/// Widest indentation of a JSON level.
const MAX_JSON_INDENT: usize = 16;

/// Python's methods of strings, lists and maps.
pub(super) fn python_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let text = value.as_str();
    let given = args.iter().fold(size(value), |sum, argument| sum.saturating_add(size(argument)));
    let argument = |index: usize| args.get(index).and_then(Value::as_str).unwrap_or_default();
    let bytes = match (text, method) {
        (Some(_), "join") => {
            let mut filter_args = args.to_vec();
            filter_args.insert(1.min(args.len()), value.clone());
            return state.apply_filter("join", &filter_args);
        }
        (Some(_), "format") => {
            let message = "the method `format` is not available in chat templates, use `~`";
            return Err(Error::new(ErrorKind::UnknownMethod, message));
        }
        (Some(text), "replace") => {
            charge(state, given)?;
            let matches = text.matches(argument(0)).count();
            given.saturating_add(matches.saturating_mul(argument(1).len()))
        }
        (Some(_), "strip" | "lstrip" | "rstrip") => given.saturating_mul(argument(0).len().saturating_add(1)),
        // Each piece is a value of its own, many times the size of a short text.
        (Some(_), "split" | "splitlines") => given.saturating_mul(16),
        _ => given,
    };
    charge(state, bytes)?;
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn size(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or(0).saturating_mul(STEP_BYTES),
    }
}

pub(super) fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / STEP_BYTES) as u64)
}

/// `value` as JSON, written as Python's `json.dumps(value, ensure_ascii=False, indent=..)` does; that
/// is the `tojson` that chat templates are written against.
pub(super) fn to_json(state: &State, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if indent.is_some_and(|width| width > MAX_JSON_INDENT) {
        return Err(invalid(format!("tojson: an indentation of at most {MAX_JSON_INDENT} is written")));
    }
    let mut writer = JsonWriter { state, indent, text: String::new() };
    writer.value(value, 0)?;
    Ok(Value::from(writer.text))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

struct JsonWriter<'a> {
    state: &'a State<'a, 'a>,
    indent: Option<usize>,
    text: String,
}

impl JsonWriter<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_JSON_DEPTH {
            return Err(invalid(format!("tojson: the value is nested more than {MAX_JSON_DEPTH} deep")));
        }
        self.state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => write!(self.text, "{value}").map_err(Error::from)?,
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Map => {
                self.text.push('{');
                for (index, key) in value.try_iter()?.enumerate() {
                    self.separate(index, depth);
                    match key.as_str() {
                        Some(name) => self.string(name)?,
                        None => self.string(&key.to_string())?,
                    }
                    self.text.push_str(": ");
                    self.value(&value.get_item(&key)?, depth + 1)?;
                }
                self.close('}', depth);
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.text.push('[');
                for (index, item) in value.try_iter()?.enumerate() {
                    self.separate(index, depth);
                    self.value(&item, depth + 1)?;
                }
                self.close(']', depth);
            }
            other => return Err(invalid(format!("tojson: a value of type {other} has no form in JSON"))),
        }
        Ok(())
    }

    fn separate(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.text.push_str(if self.indent.is_some() { "," } else { ", " });
        }
        self.line_break(depth + 1);
    }

    fn close(&mut self, bracket: char, depth: usize) {
        if !self.text.ends_with(['[', '{']) {
            self.line_break(depth);
        }
        self.text.push(bracket);
    }

    fn line_break(&mut self, depth: usize) {
        if let Some(width) = self.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', width * depth));
        }
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        charge(self.state, text.len())?;
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{C}' => self.text.push_str("\\f"),
                control if control < ' ' => {
                    write!(self.text, "\\u{:04x}", u32::from(control)).map_err(Error::from)?;
                }
                other => self.text.push(other),
            }
        }
        self.text.push('"');
        Ok(())
    }
}

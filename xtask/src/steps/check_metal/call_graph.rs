//! Who calls whom, from the text of an LLVM module: Metal has no stack to recurse on.

use std::collections::{HashMap, HashSet};

/// A function that can come to call itself.
pub(super) fn recursion(module: &str) -> Option<String> {
    let calls = calls(module);
    let mut done = HashSet::new();
    calls.keys().find_map(|function| visit(function, &calls, &mut Vec::new(), &mut done))
}

type Calls<'a> = HashMap<&'a str, Vec<&'a str>>;

fn calls(module: &str) -> Calls<'_> {
    let mut calls = Calls::new();
    let mut inside = None;
    for line in module.lines() {
        if line.starts_with("define ") {
            inside = names(line).next();
            calls.extend(inside.map(|function| (function, Vec::new())));
        } else if line == "}" {
            inside = None;
        } else if let Some(called) = inside.and_then(|function| calls.get_mut(function))
            && line.contains("call ")
        {
            called.extend(names(line));
        }
    }
    calls
}

/// The global names of a line.
fn names(line: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
    line.split('@').skip(1).map(move |rest| rest.split(|c| !is_part(c)).next().unwrap_or_default())
}

fn visit<'a>(
    function: &'a str,
    calls: &Calls<'a>,
    path: &mut Vec<&'a str>,
    done: &mut HashSet<&'a str>,
) -> Option<String> {
    if path.contains(&function) {
        return Some(function.to_owned());
    }
    if done.contains(function) {
        return None;
    }
    path.push(function);
    let called = calls.get(function).into_iter().flatten();
    let found = called.into_iter().find_map(|called| visit(called, calls, path, done));
    path.pop();
    done.insert(function);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(functions: &[(&str, &[&str])]) -> String {
        let function = |(name, called): &(&str, &[&str])| {
            let calls: String =
                called.iter().map(|name| format!("  %1 = call spir_func i32 @{name}(i32 1) #2\n")).collect();
            format!("define internal spir_func i32 @{name}(i32 %0) #1 {{\n{calls}  ret i32 0\n}}\n")
        };
        functions.iter().map(function).collect()
    }

    #[test]
    fn circles_are_found() {
        assert_eq!(recursion(&module(&[("a", &["b", "outside"]), ("b", &["c"]), ("c", &[])])), None);
        assert_eq!(recursion(&module(&[("a", &["a"])])).as_deref(), Some("a"));
        assert!(recursion(&module(&[("k", &["a"]), ("a", &["outside", "b"]), ("b", &["a"])])).is_some());
    }

    #[test]
    fn a_call_outside_hides_no_circle() {
        assert!(recursion(&module(&[("k", &["outside", "a"]), ("a", &["outside", "k"])])).is_some());
    }
}

//! What a `tokenizer.json` may ask of the `tokenizers` crate: memory that it would take before it looks is refused here.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::error::{TokenizerError, excerpt};

/// The most that all patterns of a file may weigh. Those of published models weigh a few hundred; a class takes up to 200 KB
/// where it is compiled, so that this many take some 50 MB.
const MAX_WEIGHT: u64 = 4096;
/// The weight of a class of characters, where that of a character is 1.
const CLASS: u64 = 16;

#[derive(Deserialize)]
struct File {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
}

/// Refuses what is no JSON, tables that are larger than what the file has of them, and patterns that grow when they are
/// compiled.
pub(super) fn check(json: &[u8]) -> Result<(), TokenizerError> {
    let refuse = |reason: &str| TokenizerError::vocabulary(format!("`tokenizer.json`: {reason}"));
    let file: File = serde_json::from_slice(json).map_err(|error| refuse(&excerpt(&error.to_string())))?;
    let mut weight = 0;
    for part in [&file.normalizer, &file.pre_tokenizer, &file.decoder].into_iter().flatten() {
        check_part(part, &mut weight).map_err(|reason| refuse(&reason))?;
    }
    if weight > MAX_WEIGHT {
        return Err(refuse("its patterns repeat too much: fewer or smaller repetitions are needed"));
    }
    Ok(())
}

fn check_part(part: &Value, weight: &mut u64) -> Result<(), String> {
    match part {
        Value::Array(values) => values.iter().try_for_each(|value| check_part(value, weight)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| match (name.as_str(), value) {
            ("precompiled_charsmap", Value::String(map)) => check_character_map(map),
            ("Regex", Value::String(pattern)) => {
                *weight = weight.saturating_add(pattern_weight(pattern));
                Ok(())
            }
            _ => check_part(value, weight),
        }),
        _ => Ok(()),
    }
}

/// A map of characters, in base 64, begins with the bytes of its table.
fn check_character_map(map: &str) -> Result<(), String> {
    let head = map.as_bytes().get(..8).ok_or("the character map is too short")?;
    let head = STANDARD.decode(head).map_err(|error| format!("the character map: {error}"))?;
    let named = head.first_chunk().map_or(0, |&bytes| u64::from(u32::from_le_bytes(bytes)));
    let there = map.len() as u64 / 4 * 3;
    if named + 4 > there {
        return Err(format!("the character map names a table of {named} bytes and has {there}"));
    }
    Ok(())
}

/// How much of a pattern there is once repetitions by number are written out: characters and, [`CLASS`] each, classes. What
/// hides where a repetition belongs (free spacing, calls of groups) weighs more than is allowed.
fn pattern_weight(pattern: &str) -> u64 {
    // Of each open group, the sum of its parts and the last of them.
    let mut groups: Vec<(u64, u64)> = vec![(0, 0)];
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        let atom = match first {
            '\\' => {
                let Some(escaped) = rest.chars().next() else { break };
                rest = &rest[escaped.len_utf8()..];
                match escaped {
                    'g' => return u64::MAX,
                    'p' | 'P' | 'x' | 'u' | 'U' if rest.starts_with('{') => {
                        rest = rest.find('}').map_or("", |end| &rest[end + 1..]);
                        CLASS
                    }
                    _ if escaped.is_ascii_alphabetic() => CLASS,
                    _ => 1,
                }
            }
            '[' => {
                rest = after_class(rest);
                CLASS
            }
            '.' => CLASS,
            '(' => {
                if let Some(comment) = rest.strip_prefix("?#") {
                    rest = comment.find(')').map_or("", |end| &comment[end + 1..]);
                    continue;
                }
                let flags = rest.strip_prefix('?').unwrap_or_default();
                let end = flags.find(|c: char| !c.is_ascii_alphabetic() && c != '-').unwrap_or(flags.len());
                if flags[..end].contains('x') {
                    return u64::MAX;
                }
                groups.push((0, 0));
                continue;
            }
            ')' if groups.len() > 1 => groups.pop().map_or(1, |(sum, _)| sum.max(1)),
            '{' => {
                if let Some((times, after)) = repetition(rest) {
                    rest = after;
                    let group = groups.last_mut().expect("the outermost stays");
                    group.0 = group.0.saturating_add(group.1.saturating_mul(times.saturating_sub(1)));
                    group.1 = group.1.saturating_mul(times.max(1));
                    continue;
                }
                1
            }
            '*' | '+' | '?' => continue,
            _ => 1,
        };
        let group = groups.last_mut().expect("the outermost stays");
        *group = (group.0.saturating_add(atom), atom);
    }
    groups.into_iter().fold(0, |sum, (group, _)| sum.saturating_add(group))
}

/// What follows a class, after its first bracket.
fn after_class(text: &str) -> &str {
    let text = text.strip_prefix('^').unwrap_or(text);
    let (mut depth, mut escaped) = (1, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => depth += 1,
            // As the first one it stands for itself.
            ']' if at > 0 => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    ""
}

/// The largest number of `n}`, `n,}` or `n,m}`, and what follows.
fn repetition(text: &str) -> Option<(u64, &str)> {
    let (numbers, after) = text.split_once('}')?;
    let number = |digits: &str| match digits.trim() {
        "" => Some(0),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().unwrap_or(u64::MAX)),
        _ => None,
    };
    let (least, most) = numbers.split_once(',').unwrap_or((numbers, "0"));
    if numbers.trim().is_empty() {
        return None;
    }
    Some((number(least)?.max(number(most)?), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_written_out() {
        assert_eq!(pattern_weight("abc"), 3);
        assert_eq!(pattern_weight(r"\p{N}{1,3}"), 3 * CLASS);
        assert_eq!(pattern_weight(r"(?:ab){4}{5,}c"), 3 * 20 + 1);
        assert_eq!(pattern_weight(r"[^\]a[:alpha:]]{2}x{y}z{,3}"), 2 * CLASS + "x{y}".len() as u64 + 3);
        assert_eq!(pattern_weight(r"a(?#{){7}"), 7);
        assert_eq!(pattern_weight(r"(((\w{999}){999}){999}){999}"), CLASS * 999_u64.pow(4));
        assert_eq!(pattern_weight(r"((a{99999999999999999999999}){9}"), u64::MAX);
        assert_eq!(pattern_weight(r"(?ix) a {3}"), u64::MAX);
        assert_eq!(pattern_weight(")]}\\"), 3);
    }

    #[test]
    fn what_is_refused_is_named_whole() {
        let json = br#"{"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAinvertAA=="}}"#;
        let error = check(json).unwrap_err().to_string();
        assert!(error.contains("names a table of 3181840384 bytes and has 9"), "{error}");
        let error = check(br#"{"decoder":[{"Regex":"(?<!a{999}){999}"}]}"#).unwrap_err().to_string();
        assert!(error.contains("fewer or smaller repetitions are needed"), "{error}");
    }

    #[test]
    fn patterns_of_published_models_are_light() {
        let patterns = [
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ];
        for pattern in patterns {
            assert!(pattern_weight(pattern) < MAX_WEIGHT / 8, "{pattern}: {}", pattern_weight(pattern));
        }
    }
}

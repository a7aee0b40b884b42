//! Text of files in messages.

use std::fmt::{self, Write};

/// Most characters of one text in a message.
const LIMIT: usize = 1000;

/// Shows text that came from a file on one line, whatever it holds: control characters, line breaks and characters that
/// change the direction of text are escaped, and what passes 1000 characters is left out.
pub(crate) struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in self.0.chars().enumerate() {
            if index == LIMIT {
                return f.write_str("..");
            }
            let hidden =
                matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if hidden || character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_on_its_line() {
        let shown = |text: &str| Printable(text).to_string();
        assert_eq!(shown("blk.0 é 日 `\\`"), "blk.0 é 日 `\\`");
        assert_eq!(shown("a\nb\0\u{1b}[2J\u{202e}\u{9b}"), "a\\nb\\u{0}\\u{1b}[2J\\u{202e}\\u{9b}");
        assert_eq!(shown(&"é".repeat(1000)), "é".repeat(1000));
        assert_eq!(shown(&"é".repeat(1001)), "é".repeat(1000) + "..");
    }
}

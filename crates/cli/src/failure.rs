//! Why a command ended early, as one line for the user.

use std::fmt;

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// What to tell the user.
    Message(String),
    /// Standard output was closed by its reader.
    OutputClosed,
}

impl Failure {
    /// A failure with a message.
    pub fn message(message: impl Into<String>) -> Self {
        Failure::Message(message.into())
    }

    /// A failure to write results.
    pub fn output(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Message(format!("write results: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // One clear line, whatever a compiler log or a file name holds.
            Failure::Message(message) => f.write_str(&message.lines().collect::<Vec<_>>().join(" | ")),
            Failure::OutputClosed => f.write_str("standard output was closed"),
        }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Message(error.to_string())
    }
}

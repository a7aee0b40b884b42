//! The record.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

/// The lines recorded so far; clones share them.
#[derive(Debug, Clone, Default)]
pub struct TraceLog {
    lines: Arc<Mutex<Vec<String>>>,
}

impl TraceLog {
    pub(crate) fn line(&self, line: fmt::Arguments<'_>) {
        self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(line.to_string());
    }

    /// Takes the lines, leaving an empty record.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

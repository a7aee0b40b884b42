//! Reads paths of files, one to a line, and prints for each whether it is a GGUF file: `accepted` with the numbers of metadata
//! pairs and tensors, or why it is refused. Used by `tests/differential/run.py`.

use std::error::Error;
use std::io::{self, BufRead, Write};

use anymlx_formats::gguf::Gguf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for path in io::stdin().lock().lines() {
        match Gguf::parse(&std::fs::read(path?)?) {
            Ok(gguf) => writeln!(out, "accepted {} {}", gguf.metadata.len(), gguf.tensors.len())?,
            Err(error) => writeln!(out, "{error}")?,
        }
        out.flush()?;
    }
    Ok(())
}

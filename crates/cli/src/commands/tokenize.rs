//! `anymlx tokenize`.

use std::io::Write;

use anymlx::HostFile;
use anymlx_formats::gguf::Gguf;
use anymlx_lm::tokenizer::{EncodeOptions, Tokenizer};

use crate::{
    arguments::{Shared, Tokenize},
    failure::{Failure, Outcome},
    open,
};

pub fn run(shared: &Shared, options: &Tokenize) -> Outcome {
    let path = open::model_path(shared)?;
    let at_path = |error: &dyn std::error::Error| Failure::message(format!("load `{}`: {error}", path.display()));
    let file = HostFile::open(&path)?;
    let gguf = Gguf::parse(file.bytes()).map_err(|error| at_path(&error))?;
    let tokenizer = Tokenizer::from_gguf(&gguf.metadata).map_err(|error| at_path(&error))?;
    let text = open::text(options.text.as_deref())?;
    let encode = EncodeOptions {
        add_bos: options.no_bos.then_some(false),
        add_eos: Some(false),
        parse_special: options.special,
    };
    let ids = tokenizer.encode(&text, encode)?;
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    if options.ids {
        let list: Vec<String> = ids.iter().map(u32::to_string).collect();
        writeln!(output, "[{}]", list.join(", ")).map_err(Failure::output)?;
    } else {
        for id in ids {
            let text = tokenizer.token_text(id).unwrap_or_default();
            writeln!(output, "{id:>8}  {text:?}").map_err(Failure::output)?;
        }
    }
    output.flush().map_err(Failure::output)
}

//! `anymlx tokenize`.

use std::io::Write;

use anymlx_lm::{Checkpoint, tokenizer::EncodeOptions};

use crate::{
    arguments::{Shared, Tokenize},
    failure::{Failure, Outcome},
    open,
};

pub fn run(shared: &Shared, options: &Tokenize) -> Outcome {
    let path = open::model_path(shared)?;
    let tokenizer = Checkpoint::open(&path)
        .and_then(|checkpoint| checkpoint.tokenizer())
        .map_err(|error| Failure::message(format!("load `{}`: {error}", path.display())))?;
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

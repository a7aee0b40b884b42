//! `anymlx perplexity`.

use std::io::Write;

use anymlx_lm::{Session, SessionOptions, perplexity, tokenizer::EncodeOptions};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    arguments::{Perplexity, Shared},
    failure::{Failure, Outcome},
    open,
};

pub fn run(shared: &Shared, options: &Perplexity) -> Outcome {
    let text = open::text_file(&options.file)?;
    let device = open::device(shared)?;
    let model = open::model(shared, &device)?;
    let tokenizer = model.tokenizer()?;
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos_by_default());
    let ids = tokenizer.encode(&text, EncodeOptions { add_eos: Some(false), ..EncodeOptions::default() })?;
    let session_options = SessionOptions {
        context: Some(options.context),
        chunk: options.chunk.map(|chunk| chunk.min(options.context).max(1)),
        cache_type: options.cache.cache_type,
        ..SessionOptions::default()
    };
    let mut session = Session::new(&model, session_options)?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} chunks, {eta} left").expect("a valid template");
    let bar = ProgressBar::new((ids.len() / options.context.max(1)) as u64).with_style(style);
    let mut values = Vec::new();
    let result = perplexity(&mut session, &ids, options.context, bos, |chunk| {
        bar.inc(1);
        values.push(format!("{:.4}", chunk.perplexity));
    })?;
    bar.finish_and_clear();
    let mut output = std::io::stdout().lock();
    writeln!(output, "cumulative: {}", values.join(" ")).map_err(Failure::output)?;
    writeln!(output, "perplexity: {:.4} ({} chunks of {})", result.perplexity, result.chunks, options.context)
        .map_err(Failure::output)
}

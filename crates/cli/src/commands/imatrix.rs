//! `anymlx imatrix`.

use std::{io::Write, path::Path};

use anymlx_lm::{Session, SessionOptions, quantize::importance_matrix, tokenizer::EncodeOptions};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    arguments::{Imatrix, Shared},
    failure::{Failure, Outcome},
    open,
    partial::PartialFile,
};

pub fn run(shared: &Shared, options: &Imatrix) -> Outcome {
    let text = open::text_file(&options.file)?;
    let device = open::device(shared)?;
    let model = open::model(shared, &device)?;
    let tokenizer = model.tokenizer()?;
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos_by_default());
    let ids = tokenizer.encode(&text, EncodeOptions { add_eos: Some(false), ..EncodeOptions::default() })?;
    let session_options = SessionOptions {
        context: Some(options.context),
        chunk: Some(options.chunk.min(options.context).max(1)),
        ..SessionOptions::default()
    };
    let mut session = Session::new(&model, session_options)?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} chunks, {eta} left").expect("a valid template");
    let bar = ProgressBar::new((ids.len() / options.context.max(1)) as u64).with_style(style);
    let mut chunks = 0;
    let matrix = importance_matrix(&mut session, &ids, options.context, bos, |done, _| {
        bar.inc(1);
        chunks = done;
    })?;
    bar.finish_and_clear();

    let output = &options.output;
    let failed = |error: &dyn std::error::Error| Failure::message(format!("write `{}`: {error}", output.display()));
    let dataset = options.file.file_name().unwrap_or_default().to_string_lossy();
    // Quickly made again: an interrupted run leaves nothing to go on with.
    let mut partial = PartialFile::begin(output)?;
    matrix.write(&mut partial, &dataset, chunks as u32, options.context as u32).map_err(|error| failed(&error))?;
    partial.publish()?;
    summary(output, matrix.names().count(), chunks, options.context).map_err(Failure::output)
}

fn summary(output: &Path, matrices: usize, chunks: usize, context: usize) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{}: {matrices} matrices, {chunks} chunks of {context} tokens", output.display())
}

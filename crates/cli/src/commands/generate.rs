//! `anymlx generate`.

use std::{
    io::{IsTerminal, Write},
    ops::ControlFlow,
    time::Instant,
};

use anymlx::ops::SampleParams;
use anymlx_lm::{
    GenerateOptions, Model, Session, SessionOptions, StopReason, Summary,
    chat::{Message, RenderOptions},
    generate,
    tokenizer::EncodeOptions,
};

use crate::{
    arguments::{Generate, Shared},
    failure::{Failure, Outcome},
    open,
};

pub fn run(shared: &Shared, options: &Generate) -> Outcome {
    let path = open::model_path(shared)?;
    let started = Instant::now();
    let device = open::device(shared)?;
    let model = Model::open(path, &device)?;
    let loaded = started.elapsed();
    let text = open::text(options.prompt.as_deref())?;
    let prompt = encode(&model, &text, options.chat)?;
    if prompt.is_empty() {
        return Err(Failure::message(
            "generate: the prompt is empty and this model begins texts with no token of its own",
        ));
    }
    let mut session = Session::new(&model, session_options(&model, &prompt, options)?)?;
    let generation = GenerateOptions {
        max_tokens: options.max_tokens,
        sampling: SampleParams {
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            min_p: options.min_p,
            seed: options.seed,
        },
        ignore_end: options.ignore_end,
    };
    let mut output = std::io::stdout().lock();
    let mut broken = None;
    let mut write = |text: &str| output.write_all(text.as_bytes()).and_then(|()| output.flush());
    let summary = generate(&mut session, &prompt, &generation, |token| match write(&token.text) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            broken = Some(error);
            ControlFlow::Break(())
        }
    })?;
    if let Some(error) = broken {
        return Err(Failure::output(error));
    }
    write("\n").map_err(Failure::output)?;
    let first = loaded + summary.prompt_time;
    report(&summary, first.as_secs_f64(), loaded.as_secs_f64());
    Ok(())
}

fn encode(model: &Model, text: &str, chat: bool) -> Outcome<Vec<u32>> {
    if !chat {
        return Ok(model.tokenizer()?.encode(text, EncodeOptions::default())?);
    }
    let Some(template) = model.chat_template() else {
        return Err(Failure::message("--chat: this model's file has no chat template; leave the option out"));
    };
    let prompt = template.render(&[Message::new("user", text)], RenderOptions { add_generation_prompt: true })?;
    let options = EncodeOptions { add_bos: Some(false), add_eos: Some(false), parse_special: true };
    Ok(model.tokenizer()?.encode(&prompt, options)?)
}

/// The context asked for, or just what prompt and answer need, up to what the model has.
fn session_options(model: &Model, prompt: &[u32], options: &Generate) -> Outcome<SessionOptions> {
    let trained = model.config().context_length;
    let needed = prompt.len().saturating_add(options.max_tokens);
    let context = options.context.unwrap_or(needed.min(trained));
    if prompt.len() > context {
        return Err(Failure::message(format!(
            "generate: the prompt has {} tokens, the context holds {context} (the model at most {trained})",
            prompt.len()
        )));
    }
    let chunk = options.chunk.unwrap_or_else(|| SessionOptions::usual_chunk(model.device()));
    Ok(SessionOptions {
        context: Some(context),
        chunk: Some(chunk.min(prompt.len()).max(1)),
        cache_type: options.cache.cache_type,
        ..SessionOptions::default()
    })
}

fn report(summary: &Summary, first_token: f64, loading: f64) {
    let reading = summary.prompt_time.as_secs_f64();
    let decoding = summary.decode_time.as_secs_f64();
    let rate = |count: usize, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let stop = match summary.stop {
        StopReason::EndOfText => "the model ended the text",
        StopReason::MaxTokens => "as many tokens as asked for",
        StopReason::ContextFull => "the context is full",
        _ => "stopped",
    };
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    eprintln!(
        "prompt: {} tokens, {:.1} tokens/s; decode: {} tokens, {:.1} tokens/s; first token after {first_token:.2} s (loading {loading:.2} s); {stop}",
        summary.prompt_tokens,
        rate(summary.prompt_tokens, reading),
        summary.tokens.len(),
        rate(summary.decoded, decoding),
    );
}

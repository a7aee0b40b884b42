//! `anymlx bench`: tokens per second, beside what the machine's memory allows.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anymlx::{BackendKind, MlxDevice, ops::SampleParams};
use anymlx_lm::{Model, Session, SessionOptions};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    arguments::{Bench, Shared},
    failure::{Failure, Outcome},
    open,
};

/// Spread of a figure over the counted runs.
#[derive(Debug, Clone, Copy, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct TestResult {
    test: String,
    tokens_per_s: Spread,
    /// Weight bytes read per second, for decoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_bytes_per_s: Option<f64>,
    /// Their share of the measured read bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_bandwidth: Option<f64>,
    /// Time for each decoded token in which a GPU did not work on it: its submission, its start, and the copy of what was
    /// drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    host_s_per_token: Option<f64>,
}

/// Decodings of one run.
struct Decoded {
    time: Duration,
    /// In which the device worked.
    execution: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    device: String,
    model: String,
    threads: usize,
    read_bytes_per_s: f64,
    results: Vec<TestResult>,
}

pub fn run(shared: &Shared, options: &Bench) -> Outcome {
    if options.repetitions == 0 || options.prompt == 0 && options.generate == 0 {
        return Err(Failure::message("bench: nothing to measure; give -p or -n, and at least 1 repetition"));
    }
    let device = open::device(shared)?;
    let (model, name) = match options.shape {
        Some(shape) => {
            let name = format!("{shape:?} {:?}, random weights", options.quant);
            (Model::synthetic(&device, shape, options.quant)?, name)
        }
        None => {
            let path = open::model_path(shared)?;
            let name =
                path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
            (Model::open(&path, &device)?, name)
        }
    };
    let report = measure(&device, &model, name, options)?;
    let mut output = std::io::stdout().lock();
    if options.json {
        let text = serde_json::to_string(&report)?;
        writeln!(output, "{text}").map_err(Failure::output)?;
    } else {
        table(&mut output, &report).map_err(Failure::output)?;
    }
    drop(output);
    if options.profile { profile(&model, options) } else { Ok(()) }
}

fn measure(device: &MlxDevice, model: &Model, name: String, options: &Bench) -> Outcome<Report> {
    let info = device.info();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template");
    let tests = usize::from(options.prompt > 0) + usize::from(options.generate > 0);
    let bar = ProgressBar::new((tests * (options.repetitions + 1) + 1) as u64).with_style(style);
    bar.set_message("read bandwidth");
    let read_bytes_per_s = anymlx::bandwidth::measure_read(device)?.bytes_per_second;
    bar.inc(1);
    let depth = if options.depth > 0 { format!("@{}", options.depth) } else { String::new() };
    let mut results = Vec::new();
    let mut session = session(model, options)?;
    if options.prompt > 0 {
        let test = format!("pp{}{depth}", options.prompt);
        let times = repeat(options, &bar, &test, || prompt_time(&mut session, options))?;
        let tokens_per_s = spread(&times, options.prompt);
        results.push(TestResult {
            test,
            tokens_per_s,
            weight_bytes_per_s: None,
            share_of_bandwidth: None,
            host_s_per_token: None,
        });
    }
    if options.generate > 0 {
        let test = format!("tg{}{depth}", options.generate);
        let mut execution = Vec::with_capacity(options.repetitions + 1);
        let times = repeat(options, &bar, &test, || {
            let decoded = generate_time(&mut session, options)?;
            execution.push(decoded.execution);
            Ok(decoded.time)
        })?;
        let idle = times.iter().zip(&execution[1..]).map(|(time, execution)| time.saturating_sub(*execution));
        let host_s_per_token = idle.sum::<Duration>().as_secs_f64() / (times.len() * options.generate) as f64;
        let tokens_per_s = spread(&times, options.generate);
        let bytes = model.bytes_per_token() as f64 * tokens_per_s.median;
        results.push(TestResult {
            test,
            tokens_per_s,
            weight_bytes_per_s: Some(bytes),
            share_of_bandwidth: Some(bytes / read_bytes_per_s),
            host_s_per_token: (info.backend != BackendKind::Cpu).then_some(host_s_per_token),
        });
    }
    bar.finish_and_clear();
    Ok(Report {
        device: format!("{} {}", info.backend.name(), info.name),
        model: name,
        threads: info.compute_units,
        read_bytes_per_s,
        results,
    })
}

fn session(model: &Model, options: &Bench) -> Outcome<Session> {
    let needed = options.depth.saturating_add(options.prompt.max(options.generate + 2));
    Ok(Session::new(
        model,
        SessionOptions { context: Some(needed), cache_type: options.cache.cache_type, ..SessionOptions::default() },
    )?)
}

/// One warm-up, then the counted runs.
fn repeat(
    options: &Bench,
    bar: &ProgressBar,
    test: &str,
    mut run: impl FnMut() -> Outcome<Duration>,
) -> Outcome<Vec<Duration>> {
    bar.set_message(test.to_owned());
    let mut times = Vec::with_capacity(options.repetitions);
    for counted in 0..=options.repetitions {
        let time = run()?;
        if counted > 0 {
            times.push(time);
        }
        bar.inc(1);
    }
    Ok(times)
}

fn spread(times: &[Duration], tokens: usize) -> Spread {
    let mut rates: Vec<f64> = times.iter().map(|time| tokens as f64 / time.as_secs_f64()).collect();
    rates.sort_by(f64::total_cmp);
    let middle = rates.len() / 2;
    let median = if rates.len().is_multiple_of(2) { (rates[middle - 1] + rates[middle]) / 2.0 } else { rates[middle] };
    Spread { median, min: rates[0], max: rates[rates.len() - 1] }
}

/// Token ids without meaning, the same in every run.
fn ids(model: &Model, count: usize) -> Vec<u32> {
    let vocabulary = model.config().vocabulary as u64;
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocabulary) as u32
    };
    (0..count).map(|_| next()).collect()
}

/// Empties the context and fills it to the depth asked for.
fn fill(session: &mut Session, options: &Bench) -> Outcome {
    if session.used() > options.depth {
        session.truncate(options.depth)?;
    }
    let missing = options.depth - session.used();
    if missing > 0 {
        let ids = ids(session.model(), missing);
        session.feed(&ids)?;
    }
    Ok(())
}

fn prompt_time(session: &mut Session, options: &Bench) -> Outcome<Duration> {
    fill(session, options)?;
    let ids = ids(session.model(), options.prompt);
    let started = Instant::now();
    session.feed(&ids)?;
    Ok(started.elapsed())
}

fn generate_time(session: &mut Session, options: &Bench) -> Outcome<Decoded> {
    fill(session, options)?;
    let first = session.model().tokenizer()?.bos().unwrap_or(0);
    session.feed(&[first])?;
    session.first(SampleParams::default())?;
    let mut execution = Duration::ZERO;
    let started = Instant::now();
    for _ in 0..options.generate {
        session.decode()?;
        execution += session.decode_timing().map_or(Duration::ZERO, |timing| timing.execution);
    }
    Ok(Decoded { time: started.elapsed(), execution })
}

fn table(output: &mut impl Write, report: &Report) -> std::io::Result<()> {
    writeln!(output, "{}, {} threads, {}", report.device, report.threads, report.model)?;
    writeln!(output, "read bandwidth: {:.1} GB/s (measured)", report.read_bytes_per_s / 1e9)?;
    writeln!(output, "{:<12} {:>12} {:>22}   weights read", "test", "tokens/s", "min .. max")?;
    for result in &report.results {
        let Spread { median, min, max } = result.tokens_per_s;
        write!(output, "{:<12} {median:>12.2} {:>22}", result.test, format!("{min:.2} .. {max:.2}"))?;
        match (result.weight_bytes_per_s, result.share_of_bandwidth) {
            (Some(bytes), Some(share)) => {
                write!(output, "   {:.1} GB/s, {:.0} % of the bandwidth", bytes / 1e9, share * 100.0)?;
                if let Some(host) = result.host_s_per_token {
                    write!(output, "; {:.1} us of each token are the host's", host * 1e6)?;
                }
                writeln!(output)?;
            }
            _ => writeln!(output)?,
        }
    }
    Ok(())
}

fn profile(model: &Model, options: &Bench) -> Outcome {
    let device = model.device();
    if device.info().backend != BackendKind::Cpu {
        return Err(Failure::message("--profile is for the cpu device only"));
    }
    let mut session = session(model, options)?;
    generate_time(&mut session, options)?;
    device.set_profiling(true);
    generate_time(&mut session, options)?;
    device.set_profiling(false);
    let Some(graph) = session.decode_graph() else { return Ok(()) };
    let entries = graph.take_profile();
    let total: Duration = entries.iter().map(|entry| entry.thread_time).sum();
    let mut output = std::io::stdout().lock();
    writeln!(output, "\nthread time of one decoded token by kernel").map_err(Failure::output)?;
    for entry in entries {
        let each = entry.thread_time.as_secs_f64() / options.generate.max(1) as f64;
        let share = entry.thread_time.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
        writeln!(output, "{:>10.1} us {:>5.1} %  {:>4} x {}", each * 1e6, share * 100.0, entry.commands, entry.label)
            .map_err(Failure::output)?;
    }
    Ok(())
}

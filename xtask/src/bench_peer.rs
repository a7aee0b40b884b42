//! `cargo xtask bench-peer`: this library and llama.cpp in turn on the same files, in one run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    process,
    tools::{self, Source, Tool},
    workspace::Workspace,
};

const VERSION: &str = "0.3.36";
const CMAKE: Tool = Tool { name: "cmake", probe: &["cmake", "--version"], source: Source::Apt("cmake") };
const NINJA: Tool = Tool { name: "ninja", probe: &["ninja", "--version"], source: Source::Apt("ninja-build") };

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Model files; without one the model of the tests, which `anymlx pull` has to have fetched
    models: Vec<PathBuf>,
    /// Runs of each program on each file, in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Threads of both programs
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Tokens of the prompt test
    #[arg(short, long, default_value_t = 512)]
    prompt: usize,
    /// Tokens of the generation test
    #[arg(short = 'n', long, default_value_t = 64)]
    generate: usize,
    /// A folder with llama-bench in it, in place of one built from the package on PyPI
    #[arg(long)]
    llama: Option<PathBuf>,
    /// Where the table and the raw logs go
    #[arg(long, default_value = "target/bench-peer")]
    output: PathBuf,
}

/// Tokens per second of the two tests.
#[derive(Debug, Clone, Copy)]
struct Rates {
    prompt: f64,
    generate: f64,
    /// Share of the measured read bandwidth, for our own generation.
    share: Option<f64>,
}

/// Runs the comparison and writes `table.md` and `raw.log`.
///
/// # Errors
/// A program that cannot be built or run, or output that is not what it should be.
pub fn run(workspace: &Workspace, options: &Options) -> Result<(), String> {
    process::run(&mut workspace.cargo(["build", "--release", "--package", "anymlx-cli"])).map_err(|f| f.reason)?;
    let llama = match &options.llama {
        Some(folder) => folder.join("llama-bench"),
        None => build_llama(workspace)?,
    };
    let ours = workspace.root().join("target/release/anymlx");
    let models = if options.models.is_empty() { vec![default_model(&ours)?] } else { options.models.clone() };
    let output = workspace.root().join(&options.output);
    fs::create_dir_all(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    let mut raw = String::new();
    let mut table = format!(
        "llama.cpp: PyPI llama-cpp-python {VERSION}, built for this processor. {} rounds in turn, {} threads, medians.\n\n\
         | file | test | anymlx t/s | llama.cpp t/s | ratio | lowest .. highest ratio | share of read bandwidth |\n\
         |---|---|---|---|---|---|---|\n",
        options.rounds, options.threads
    );
    for model in &models {
        let mut pairs = Vec::new();
        for round in 1..=options.rounds {
            eprintln!("{}: round {round} of {}", model.display(), options.rounds);
            pairs.push((ours_once(&ours, model, options, &mut raw)?, llama_once(&llama, model, options, &mut raw)?));
        }
        table.push_str(&rows(model, options, &pairs));
    }
    let write = |name: &str, text: &str| {
        let path = output.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write("table.md", &table)?;
    write("raw.log", &raw)?;
    print!("{table}");
    eprintln!("written to {}", output.display());
    Ok(())
}

fn default_model(ours: &Path) -> Result<PathBuf, String> {
    let text = process::output(Command::new(ours).args(["pull", "gemma3-270m"]))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&text).trim()))
}

fn parse(text: &[u8], raw: &mut String, what: &str) -> Result<Value, String> {
    let text = String::from_utf8_lossy(text);
    raw.push_str(&format!("{what}: {}\n", text.split_whitespace().collect::<Vec<_>>().join(" ")));
    serde_json::from_str(&text).map_err(|error| format!("{what} printed no JSON: {error}"))
}

fn number(value: &Value, what: &str) -> Result<f64, String> {
    value.as_f64().ok_or_else(|| format!("{what} is missing in the output"))
}

fn ours_once(program: &Path, model: &Path, options: &Options, raw: &mut String) -> Result<Rates, String> {
    let mut command = Command::new(program);
    command.arg("bench").args(["--json", "--device", "cpu", "--repetitions", "1", "--model"]).arg(model);
    command.args(["--prompt", &options.prompt.to_string(), "--generate", &options.generate.to_string()]);
    let report = parse(&process::output(command.args(["--threads", &options.threads.to_string()]))?, raw, "anymlx")?;
    let results = &report["results"];
    Ok(Rates {
        prompt: number(&results[0]["tokens_per_s"]["median"], "pp")?,
        generate: number(&results[1]["tokens_per_s"]["median"], "tg")?,
        share: results[1]["share_of_bandwidth"].as_f64(),
    })
}

fn llama_once(program: &Path, model: &Path, options: &Options, raw: &mut String) -> Result<Rates, String> {
    let mut command = Command::new(program);
    command.args(["-o", "json", "-r", "1", "-t", &options.threads.to_string(), "-m"]).arg(model);
    command.args(["-p", &options.prompt.to_string(), "-n", &options.generate.to_string()]);
    let report = parse(&process::output(&mut command)?, raw, "llama.cpp")?;
    Ok(Rates {
        prompt: number(&report[0]["avg_ts"], "pp")?,
        generate: number(&report[1]["avg_ts"], "tg")?,
        share: None,
    })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

fn rows(model: &Path, options: &Options, pairs: &[(Rates, Rates)]) -> String {
    let name = model.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let row = |test: String, pick: fn(&Rates) -> f64, share: String| {
        let ratios = || pairs.iter().map(|(ours, theirs)| pick(ours) / pick(theirs));
        format!(
            "| {name} | {test} | {:.1} | {:.1} | {:.2} | {:.2} .. {:.2} | {share} |\n",
            median(pairs.iter().map(|pair| pick(&pair.0))),
            median(pairs.iter().map(|pair| pick(&pair.1))),
            median(ratios()),
            ratios().fold(f64::INFINITY, f64::min),
            ratios().fold(0.0, f64::max),
        )
    };
    let share = median(pairs.iter().filter_map(|(ours, _)| ours.share));
    let prompt = row(format!("pp{}", options.prompt), |rates| rates.prompt, String::new());
    prompt + &row(format!("tg{}", options.generate), |rates| rates.generate, format!("{:.0} %", share * 100.0))
}

/// llama-bench from the sources in the Python package: about 10 minutes, once.
fn build_llama(workspace: &Workspace) -> Result<PathBuf, String> {
    let folder = workspace.root().join("target/llama.cpp").join(VERSION);
    let program = folder.join("build/bin/llama-bench");
    if program.is_file() {
        return Ok(program);
    }
    for tool in [tools::PIP, tools::CPP, CMAKE, NINJA] {
        tool.ensure()?;
    }
    let sources = folder.join("src");
    fs::create_dir_all(&sources).map_err(|error| format!("{}: {error}", sources.display()))?;
    let step = |program: &str, arguments: &[&str]| {
        process::run(Command::new(program).args(arguments).current_dir(&folder)).map_err(|failure| failure.reason)
    };
    let package = format!("llama-cpp-python=={VERSION}");
    // Only this package from its sources: those of what it depends on are not needed.
    step(
        "python3",
        &["-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python", &package, "-d", "."],
    )?;
    let archive = format!("llama_cpp_python-{VERSION}.tar.gz");
    step("tar", &["xzf", &archive, "-C", "src", "--strip-components=1"])?;
    let mut configure = vec!["-G", "Ninja", "-S", "src/vendor/llama.cpp", "-B", "build", "-DCMAKE_BUILD_TYPE=Release"];
    configure.extend(["-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF"]);
    configure.push("-DLLAMA_BUILD_EXAMPLES=OFF");
    step("cmake", &configure)?;
    step("ninja", &["-C", "build", "llama-bench"])?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}

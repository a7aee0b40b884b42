//! `cargo xtask first-mac`: what the owner of the first Mac runs, with what is expected, into one report to send back.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::workspace::Workspace;

/// What to run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Prints the commands and what is expected of them, and runs nothing
    #[arg(long)]
    list: bool,
    /// The report
    #[arg(short, long, default_value = "target/first-mac.md")]
    output: PathBuf,
}

/// What a command's output must show.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// It ends well.
    Success,
    /// It ends well, and says this.
    Text(&'static str),
    /// It ends well, and tests ran, all of which passed.
    Tests,
    /// It ends well, and the number behind this text is this one, within a part of it.
    Number { after: &'static str, value: f64, within: f64 },
}

struct Item {
    what: &'static str,
    command: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    expected: Expected,
}

const METAL: &[(&str, &str)] = &[("ANYMLX_DEVICE", "metal")];
/// Only the GPU and the CPU: the emulator proves nothing here.
const NO_EMULATOR: &[(&str, &str)] = &[("ANYMLX_EMULATOR", "off")];
/// Metal's own checks of every call and of what kernels access.
const VALIDATED: &[(&str, &str)] =
    &[("MTL_DEBUG_LAYER", "1"), ("MTL_SHADER_VALIDATION", "1"), ("ANYMLX_EMULATOR", "off")];

const ITEMS: &[Item] = &[
    Item { what: "The system", command: &["sw_vers"], environment: &[], expected: Expected::Text("ProductVersion") },
    Item {
        what: "The processor",
        command: &["sysctl", "-n", "machdep.cpu.brand_string"],
        environment: &[],
        expected: Expected::Text("Apple"),
    },
    Item {
        what: "The devices",
        command: &["cargo", "run", "--release", "--", "devices"],
        environment: &[],
        expected: Expected::Text("metal: Apple"),
    },
    Item {
        what: "The buffer contract on Metal",
        command: &["cargo", "test", "--profile", "testing", "-p", "anymlx", "--test", "conformance", "metal::"],
        environment: &[],
        expected: Expected::Tests,
    },
    Item {
        what: "The buffer contract with Metal's validation on",
        command: &["cargo", "test", "--profile", "testing", "-p", "anymlx", "--test", "conformance", "metal::"],
        environment: VALIDATED,
        expected: Expected::Tests,
    },
    Item {
        what: "Every operation against its f64 reference, with margins",
        command: &[
            "cargo",
            "test",
            "--profile",
            "testing",
            "-p",
            "anymlx",
            "--lib",
            "ops::",
            "--no-fail-fast",
            "--",
            "--show-output",
        ],
        environment: NO_EMULATOR,
        expected: Expected::Tests,
    },
    Item {
        what: "Every operation with Metal's validation on",
        command: &["cargo", "test", "--profile", "testing", "-p", "anymlx", "--lib", "ops::", "--no-fail-fast"],
        environment: VALIDATED,
        expected: Expected::Tests,
    },
    Item {
        what: "The model",
        command: &["cargo", "run", "--release", "--", "pull", "gemma3-270m"],
        environment: &[],
        expected: Expected::Success,
    },
    Item {
        what: "A text",
        command: &["cargo", "run", "--release", "--", "generate", "The capital of France is", "-n", "24"],
        environment: METAL,
        expected: Expected::Text("Paris"),
    },
    Item {
        what: "Perplexity, which llama.cpp gives as 13.8844",
        command: &[
            "cargo",
            "run",
            "--release",
            "--",
            "perplexity",
            "crates/cli/tests/data/gpl3.txt",
            "--context",
            "512",
        ],
        environment: METAL,
        expected: Expected::Number { after: "perplexity: ", value: 13.8844, within: 0.005 },
    },
    Item {
        what: "Speed, beside the memory's bandwidth",
        command: &["cargo", "run", "--release", "--", "bench", "--json"],
        environment: METAL,
        expected: Expected::Text("{"),
    },
];

/// Runs the list.
///
/// # Errors
/// On a system that is no Mac; when the report cannot be written; when something was not as expected.
pub fn run(workspace: &Workspace, options: &Options) -> Result<(), String> {
    if options.list {
        ITEMS.iter().for_each(|item| println!("{}", item.describe()));
        return Ok(());
    }
    if !cfg!(target_os = "macos") {
        return Err("this is no Mac; --list shows what would run there".to_owned());
    }
    let path = workspace.root().join(&options.output);
    let mut report = "# First Mac\n".to_owned();
    let mut wrong = Vec::new();
    for item in ITEMS {
        println!("== {}", item.describe());
        let start = Instant::now();
        let (judgement, output) = item.run(workspace);
        let seconds = start.elapsed().as_secs_f64();
        let verdict = match &judgement {
            Ok(()) => "as expected".to_owned(),
            Err(reason) => format!("NOT AS EXPECTED: {reason}"),
        };
        println!("== {verdict}, {seconds:.1} s");
        let text =
            format!("\n## {}\n\n{verdict}, {seconds:.1} s\n\n```text\n{}\n```\n", item.describe(), output.trim());
        report.push_str(&text);
        // After each item: what has run is not lost when the next one hangs.
        save(&path, &report)?;
        wrong.extend(judgement.err().map(|_| item.what));
    }
    println!("report: {}", path.display());
    if wrong.is_empty() { Ok(()) } else { Err(format!("not as expected: {}", wrong.join(", "))) }
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
    parent.and_then(|()| fs::write(path, text)).map_err(|error| format!("{}: {error}", path.display()))
}

impl Item {
    fn describe(&self) -> String {
        let mut text = format!("{}: `", self.what);
        for (name, value) in self.environment {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name}={value} ");
        }
        let expected = match self.expected {
            Expected::Success => "it ends well".to_owned(),
            Expected::Text(part) => format!("`{part}`"),
            Expected::Tests => "all tests pass".to_owned(),
            Expected::Number { after, value, within } => format!("`{after}{value}` within {} %", within * 100.0),
        };
        let quoted =
            self.command.iter().map(|word| if word.contains(' ') { format!("\"{word}\"") } else { (*word).into() });
        let _ = write!(text, "{}`, expected: {expected}", quoted.collect::<Vec<_>>().join(" "));
        text
    }

    /// What was wrong, if anything, and the output.
    fn run(&self, workspace: &Workspace) -> (Result<(), String>, String) {
        let [program, arguments @ ..] = self.command else { return (Err("no command".to_owned()), String::new()) };
        let mut command: Command = workspace.command(program);
        command.args(arguments).envs(self.environment.iter().copied()).stdin(Stdio::null());
        match command.output() {
            Err(error) => (Err(error.to_string()), String::new()),
            Ok(output) => {
                let text =
                    [&*String::from_utf8_lossy(&output.stdout), &*String::from_utf8_lossy(&output.stderr)].concat();
                print!("{text}");
                let ended = if output.status.success() { Ok(()) } else { Err(output.status.to_string()) };
                (ended.and_then(|()| self.expected.judge(&text)), text)
            }
        }
    }
}

impl Expected {
    fn judge(&self, output: &str) -> Result<(), String> {
        match *self {
            Expected::Success => Ok(()),
            Expected::Text(part) if output.contains(part) => Ok(()),
            Expected::Text(part) => Err(format!("`{part}` is not in the output")),
            Expected::Tests => {
                let mut report = crate::report::Report::default();
                output.lines().for_each(|line| report.read_line(line));
                if report.passed() > 0 && report.failed() == 0 { Ok(()) } else { Err(report.to_string()) }
            }
            Expected::Number { after, value, within } => {
                let number = output.split(after).nth(1).and_then(|rest| rest.split_whitespace().next());
                let number = number.and_then(|word| word.parse::<f64>().ok());
                match number {
                    Some(number) if (number - value).abs() <= within * value => Ok(()),
                    Some(number) => Err(format!("{number} is not within {} % of {value}", within * 100.0)),
                    None => Err(format!("there is no number behind `{after}`")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_judged() {
        let number = Expected::Number { after: "perplexity: ", value: 13.8844, within: 0.005 };
        assert_eq!(number.judge("cumulative: 1 2\nperplexity: 13.8557 (10 chunks of 512)"), Ok(()));
        assert!(number.judge("perplexity: 14.2 (10 chunks of 512)").is_err());
        assert!(number.judge("perplexity: nan").is_err() && number.judge("").is_err());
        assert_eq!(Expected::Tests.judge("test result: ok. 3 passed; 0 failed; 0 ignored"), Ok(()));
        assert!(Expected::Tests.judge("test result: ok. 0 passed; 0 failed; 0 ignored").is_err());
        assert!(Expected::Text("metal").judge("cpu").is_err());
    }

    #[test]
    fn the_list_names_files_that_exist() {
        let workspace = Workspace::here();
        let files = ITEMS.iter().flat_map(|item| item.command).filter(|word| word.starts_with("crates/"));
        assert_eq!(files.map(|file| assert!(workspace.root().join(file).is_file(), "{file}")).count(), 1);
    }
}

//! Texts through clang in two modes, neither of which is Metal; together they refuse what Metal would.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{Text, call_graph, write};

const STDLIB: &str = include_str!("metal_stdlib");
const COMMON: &[&str] = &[
    "-D__METAL_VERSION__=300",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wdouble-promotion",
    "-Wvla",
    "-Wno-unknown-attributes",
    "-Wno-ignored-attributes",
    "-Wno-unused-parameter",
    "-Wno-unused-function",
];
/// Metal's version of C++, with address spaces as qualifiers of types.
const CPP14: &[&str] = &["-fsyntax-only", "-std=c++14", "-Wno-undefined-internal"];
/// The rules that OpenCL shares with Metal; what it makes of the text shows who calls whom.
const OPENCL: &[&str] = &[
    "-x",
    "clcpp",
    "-cl-std=clc++2021",
    "-target",
    "spir64-unknown-unknown",
    "-Xclang",
    "-finclude-default-header",
    "-Xclang",
    "-cl-ext=-__opencl_c_program_scope_global_variables,-__opencl_c_pipes,-__opencl_c_device_enqueue,-__opencl_c_fp64,-cl_khr_fp64",
    "-S",
    "-emit-llvm",
    "-O0",
    "-Xclang",
    "-disable-llvm-passes",
    "-o",
    "-",
];
/// `[[buffer(0)]]` to `[[buffer(30)]]`, by the Metal feature set tables.
const BUFFERS: usize = 31;

/// clang and the folder for what it reads.
#[derive(Debug)]
pub(super) struct Clang {
    folder: PathBuf,
    number: AtomicUsize,
}

impl Clang {
    pub(super) fn new(folder: &Path) -> Result<Self, String> {
        write(&folder.join("include/metal_stdlib"), STDLIB)?;
        Ok(Self { folder: folder.to_owned(), number: AtomicUsize::new(0) })
    }

    /// What is wrong with each text, on all processors.
    pub(super) fn check_all<'a>(&self, texts: &'a [Text]) -> Result<Vec<(&'a str, Vec<String>)>, String> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let part = texts.len().div_ceil(threads).max(1);
        thread::scope(|scope| {
            let check = |texts: &'a [Text]| {
                let one = |text: &'a Text| Ok((text.name.as_str(), self.check(text)?));
                texts.iter().map(one).collect::<Result<Vec<_>, String>>()
            };
            let running: Vec<_> = texts.chunks(part).map(|texts| scope.spawn(move || check(texts))).collect();
            let mut all = Vec::new();
            for thread in running {
                all.extend(thread.join().map_err(|_| "a check panicked".to_owned())??);
            }
            Ok(all)
        })
    }

    /// What is wrong with a text; nothing if it is Metal as far as this can tell.
    pub(super) fn check(&self, text: &Text) -> Result<Vec<String>, String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let file = self.folder.join(format!("checked/{}-{number}.cpp", std::process::id()));
        write(&file, &text.text)?;
        let mut problems = Vec::new();
        let (_, log) = self.run(CPP14, &file)?;
        problems.extend(log);
        let (module, log) = self.run(OPENCL, &file)?;
        problems.extend(log);
        problems.extend(call_graph::recursion(&module).map(|name| format!("recursion through {name}")));
        let (expanded, _) =
            self.run(&["-E", "-P", "-x", "clcpp", "-cl-std=clc++2021", "-target", "spir64-unknown-unknown"], &file)?;
        problems.extend(too_many_buffers(&expanded));
        problems.extend(lambdas(&text.text));
        std::fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(problems)
    }

    /// What clang prints, and its complaints.
    fn run(&self, mode: &[&str], file: &Path) -> Result<(String, Option<String>), String> {
        let mut command = Command::new("clang++-19");
        command.args(COMMON).arg(format!("-I{}", self.folder.join("include").display())).args(mode).arg(file);
        let output = command.output().map_err(|error| format!("clang++-19: {error}"))?;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), (!output.status.success()).then_some(log)))
    }
}

/// Kernels whose parameters have places that Metal lacks, or that share one.
fn too_many_buffers(expanded: &str) -> Vec<String> {
    let mut problems = Vec::new();
    // The first part is before any kernel.
    for kernel in expanded.split("kernel void ").skip(1) {
        let name = kernel.split('(').next().unwrap_or_default().trim();
        let parameters = kernel.split('{').next().unwrap_or_default();
        let places =
            parameters.split("[[buffer(").skip(1).map(|rest| rest.split(')').next().unwrap_or_default().trim());
        let mut seen = [false; BUFFERS];
        for place in places {
            match place.parse::<usize>().ok().and_then(|place| seen.get_mut(place)) {
                Some(seen @ false) => *seen = true,
                Some(true) => problems.push(format!("{name}: two parameters are buffer({place})")),
                None => problems.push(format!("{name}: buffer({place}), the last is buffer({})", BUFFERS - 1)),
            }
        }
    }
    problems
}

/// clang takes lambdas in both modes; whether Metal does depends on its version.
fn lambdas(text: &str) -> Option<String> {
    let is_lambda = |line: &&str| ["[](", "[&](", "[=]("].iter().any(|start| line.replace(' ', "").contains(start));
    text.lines().find(is_lambda).map(|line| format!("a lambda: {}", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_buffers() {
        let kernel = |places: &[usize]| {
            let parameters: Vec<_> =
                places.iter().map(|place| format!("device int* b{place} [[buffer({place})]]")).collect();
            format!("struct S {{ int a; }};\nkernel void k({}) {{ }}", parameters.join(", "))
        };
        assert_eq!(too_many_buffers(&kernel(&[0, 1, 30])), Vec::<String>::new());
        assert_eq!(too_many_buffers(&kernel(&(0..32).collect::<Vec<_>>())), ["k: buffer(31), the last is buffer(30)"]);
        assert_eq!(too_many_buffers(&kernel(&[0, 0])), ["k: two parameters are buffer(0)"]);
    }

    #[test]
    fn lambdas_are_seen() {
        assert!(lambdas("auto f = [&] (int a) { return a; };").is_some());
        assert!(lambdas("a[i](b)").is_none() && lambdas("[[buffer(0)]]").is_none());
    }
}

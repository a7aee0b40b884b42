//! Programs that steps need and a new machine may lack: installed where that can be done unasked, else the reason.

use std::process::Command;

use crate::process;

/// A program and where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// What it is called in messages.
    pub name: &'static str,
    /// A command that succeeds when it is there.
    pub probe: &'static [&'static str],
    /// Where it comes from.
    pub source: Source,
}

/// Where a tool comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// A Debian package.
    Apt(&'static str),
    /// A component of the Rust toolchain.
    Rustup(&'static str),
}

/// Fetches packages from PyPI.
pub const PIP: Tool =
    Tool { name: "pip", probe: &["python3", "-m", "pip", "--version"], source: Source::Apt("python3-pip") };

/// Compiles GPU kernels for the host.
pub const CPP: Tool = Tool { name: "a C++ compiler", probe: &["c++", "--version"], source: Source::Apt("g++") };

/// Compiles GPU kernels for ThreadSanitizer.
pub const CLANG: Tool = Tool { name: "clang 19", probe: &["clang++-19", "--version"], source: Source::Apt("clang-19") };

/// The sanitizers of clang.
pub const CLANG_RUNTIMES: Tool = Tool {
    name: "the runtimes of clang 19",
    // Prints a path where the file exists, else the bare name.
    probe: &[
        "sh",
        "-c",
        "test -f \"$(clang++-19 -print-file-name=libclang_rt.tsan.a)\" || test -f \"$(clang++-19 -print-file-name=libclang_rt.tsan-$(uname -m).a)\"",
    ],
    source: Source::Apt("libclang-rt-19-dev"),
};

/// `cargo fmt`.
pub const RUSTFMT: Tool =
    Tool { name: "rustfmt", probe: &["cargo", "fmt", "--version"], source: Source::Rustup("rustfmt") };

/// `cargo clippy`.
pub const CLIPPY: Tool =
    Tool { name: "clippy", probe: &["cargo", "clippy", "--version"], source: Source::Rustup("clippy") };

impl Tool {
    /// Makes the tool present.
    ///
    /// # Errors
    /// Why it is not, and how to install it.
    pub fn ensure(&self) -> Result<(), String> {
        if self.is_present() {
            return Ok(());
        }
        let tried = match self.source {
            Source::Apt(package) => apt_install(package),
            Source::Rustup(component) => {
                let mut add = Command::new("rustup");
                process::run(add.args(["component", "add", component])).map(drop).map_err(|failure| failure.reason)
            }
        };
        match tried {
            Ok(()) if self.is_present() => Ok(()),
            Ok(()) => Err(format!("{} was installed and still does not run", self.name)),
            Err(reason) => Err(format!("{} is absent and could not be installed ({reason})", self.name)),
        }
    }

    fn is_present(&self) -> bool {
        let [program, arguments @ ..] = self.probe else { return false };
        process::succeeds(Command::new(program).args(arguments))
    }
}

/// Installs a Debian package, if this is Debian and we may.
fn apt_install(package: &str) -> Result<(), String> {
    if !process::succeeds(Command::new("apt-get").arg("--version")) {
        return Err(format!("this is no Debian; install what Debian calls {package}"));
    }
    let user = process::output(Command::new("id").arg("-u"))?;
    if user.trim_ascii() != b"0" {
        return Err(format!("only root can; run `apt-get install {package}`"));
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-y"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        process::run(&mut command).map(drop).map_err(|failure| failure.reason)
    };
    let install = ["install", "--no-install-recommends", package];
    // Lists may be absent or stale; fetching them takes long and is most often needless.
    apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_present_tool_is_not_installed() {
        let cargo = Tool { name: "cargo", probe: &["cargo", "--version"], source: Source::Rustup("no-such-component") };
        assert_eq!(cargo.ensure(), Ok(()));
    }

    #[test]
    fn an_absent_tool_is_named() {
        let absent = Tool { name: "frob", probe: &["no-such-program"], source: Source::Rustup("no-such-component") };
        let reason = absent.ensure().unwrap_err();
        assert!(reason.starts_with("frob is absent and could not be installed ("), "{reason}");
    }
}

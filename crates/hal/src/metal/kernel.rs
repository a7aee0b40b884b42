//! Compiled kernels.

use std::{path::PathBuf, sync::Arc};

use super::{Api, CompileOptions, LanguageVersion, PipelineLimits, lock, shared::Shared};
use crate::{CpuKernel, HalError, KernelSource, Launch, Result, cache::CacheKey, dialect};

/// The dialect's threads of a simdgroup.
const WIDTH: u32 = 32;
/// `[[buffer(30)]]` is the fault record, so that bindings and block are at most this many.
pub(super) const FAULT_INDEX: usize = 30;
/// Metal's limit on `setBytes`.
const MAX_BLOCK: usize = 4096;
/// Compiled texts that are remembered.
const MAX_LIBRARIES: usize = 1024;
/// The kernels behind copies and fills.
pub const TRANSFER: &str = include_str!("../../gpu/transfer.gpu.cpp");

#[derive(Debug)]
struct Inner<A: Api> {
    name: String,
    pipeline: A::Pipeline,
    limits: PipelineLimits,
}

/// A compiled kernel.
#[derive(Debug)]
pub struct Kernel<A: Api> {
    inner: Arc<Inner<A>>,
}

impl<A: Api> Clone for Kernel<A> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// The kernels behind copies and fills.
#[derive(Debug)]
pub(super) struct Transfers<A: Api> {
    pub(super) copy_bytes: Kernel<A>,
    pub(super) copy_vectors: Kernel<A>,
    pub(super) fill_bytes: Kernel<A>,
}

/// How a text is compiled: in the oldest version of the language that has what it names, and never with fast
/// math, for kernels rely on the order of their sums and on infinities.
pub(super) fn options_for(text: &str) -> CompileOptions {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let bfloat = code.flat_map(|line| line.split(|c| !is_name(c))).any(|word| word.starts_with("bfloat"));
    let language = if bfloat { LanguageVersion::Metal3_1 } else { LanguageVersion::Metal3_0 };
    CompileOptions { language, fast_math: false }
}

impl<A: Api> Kernel<A> {
    pub(super) fn compile(shared: &Arc<Shared<A>>, source: &KernelSource<'_>) -> Result<Self> {
        if !source.has_gpu_text() {
            let log = "the kernel has no text for GPUs".to_owned();
            return Err(HalError::CompileFailed { name: source.name.to_owned(), log });
        }
        Self::of_text(shared, source.name, source.gpu, source.cpu.as_ref())
    }

    pub(super) fn transfer(shared: &Arc<Shared<A>>, name: &str) -> Result<Self> {
        Self::of_text(shared, name, TRANSFER, None)
    }

    fn of_text(shared: &Arc<Shared<A>>, name: &str, text: &str, host: Option<&CpuKernel>) -> Result<Self> {
        let failed = |log: String| HalError::CompileFailed { name: name.to_owned(), log };
        let text = dialect::whole_text(text);
        let options = options_for(&text);
        let (api, facts) = (&shared.api, &shared.facts);
        let settings = format!("{options:?}");
        let key = |function: &str| {
            CacheKey::of([&text, &settings, &facts.name, &facts.system, function].map(|part: &str| part.as_bytes()))
        };
        let archive: Option<PathBuf> =
            shared.archives.as_ref().map(|folder| folder.join(key(name).hex() + ".metalarchive"));
        api.autorelease(|| {
            let mut libraries = lock(&shared.libraries);
            let library = match libraries.get(&key("")) {
                Some(library) => library.clone(),
                None => {
                    let library = api.new_library(&text, options).map_err(failed)?;
                    if libraries.len() >= MAX_LIBRARIES {
                        libraries.clear();
                    }
                    libraries.insert(key(""), library.clone());
                    library
                }
            };
            drop(libraries);
            let pipeline = api.new_pipeline(&library, name, archive.as_deref(), host).map_err(failed)?;
            let limits = api.pipeline_limits(&pipeline);
            if limits.width != WIDTH {
                return Err(failed(format!("simdgroups of {} threads, needed {WIDTH}", limits.width)));
            }
            if limits.threadgroup_bytes > facts.threadgroup_bytes {
                let (declared, limit) = (limits.threadgroup_bytes, facts.threadgroup_bytes);
                return Err(failed(format!("{declared} bytes of threadgroup memory, the device has {limit}")));
            }
            let inner = Inner { name: name.to_owned(), pipeline, limits };
            Ok(Self { inner: Arc::new(inner) })
        })
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(super) fn pipeline(&self) -> &A::Pipeline {
        &self.inner.pipeline
    }

    /// The launch is one that Metal takes.
    pub(super) fn check_launch(&self, bindings: usize, block: usize, launch: &Launch) -> Result<()> {
        let Inner { name, limits, .. } = &*self.inner;
        let invalid = |message: String| {
            Err(HalError::InvalidUse { operation: "dispatch", message: format!("kernel `{name}`: {message}") })
        };
        let (groups, threads) = (launch.groups, launch.threads_per_group);
        if threads == 0 || threads % WIDTH != 0 || threads > limits.threads {
            let most = limits.threads;
            return invalid(format!(
                "{threads} threads per group, needed a multiple of {WIDTH} from {WIDTH} to {most}"
            ));
        }
        if groups.contains(&0) {
            return invalid(format!("{groups:?} groups, needed 1 or more of each"));
        }
        let arguments = bindings + usize::from(block > 0);
        if arguments > FAULT_INDEX {
            return invalid(format!("{arguments} arguments, at most {FAULT_INDEX} are possible"));
        }
        if block > MAX_BLOCK {
            return invalid(format!("a block of {block} bytes, at most {MAX_BLOCK} are possible"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_as_old_as_the_text_allows() {
        assert_eq!(options_for("struct bf16 { ushort bits; }; // no bfloat").language, LanguageVersion::Metal3_0);
        assert_eq!(options_for("simdgroup_matrix<bfloat, 8, 8> m;").language, LanguageVersion::Metal3_1);
        assert_eq!(options_for("my_bfloat x; half4 y;").language, LanguageVersion::Metal3_0);
        assert!(!options_for("").fast_math);
    }
}

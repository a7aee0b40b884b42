//! Compiled kernels.

use std::{
    collections::HashMap,
    ffi::{CString, c_int},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
};

use cudarc::driver::sys;

use super::{
    Compiler,
    compiler::Target,
    context::Shared,
    driver::{DriverResult, driver},
    lock, staging,
};
use crate::{
    HalError, Launch, Result,
    backend::KernelSource,
    cache::{CacheKey, FileCache},
    dialect,
};

/// Bytes of compiled kernels that are kept on disk.
const CACHE_LIMIT: u64 = 1 << 30;
/// Texts whose modules are remembered, dead ones included.
const MAX_MODULES: usize = 1024;
/// Symbol through which kernels report faults.
const FAULT_SYMBOL: &std::ffi::CStr = c"gpu_fault_words";
/// The first driver with `cuFuncGetParamInfo`.
const PARAMETER_INFO_DRIVER: c_int = 12_040;

/// A text's machine code in the context.
#[derive(Debug)]
struct Module {
    handle: sys::CUmodule,
    shared: Arc<Shared>,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: whatever runs the module's kernels holds them, and they hold the module.
        let unloaded = self.shared.enter().map(|_current| unsafe { driver!(cuModuleUnload(self.handle)) });
        match unloaded {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.shared.note(error),
            Err(error) => tracing::debug!(%error, "unloading a module"),
        }
    }
}

#[derive(Debug)]
struct Inner {
    name: Box<str>,
    function: sys::CUfunction,
    max_threads: u32,
    /// Bytes of threadgroup memory beside what the text declares as arrays.
    dynamic_shared: u32,
    /// Whether it waits by itself for the commands before.
    starts_early: bool,
    /// Bytes of each parameter, where the driver tells.
    parameters: Option<Box<[usize]>>,
    module: Arc<Module>,
}

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// A kernel loaded into the device's context; clones are handles.
#[derive(Clone)]
pub struct Kernel {
    inner: Arc<Inner>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kernel").field(&self.inner.name).finish()
    }
}

impl Kernel {
    pub(super) fn function(&self) -> sys::CUfunction {
        self.inner.function
    }

    /// Bytes of threadgroup memory that a launch asks for.
    pub(super) fn dynamic_shared(&self) -> u32 {
        self.inner.dynamic_shared
    }

    /// True when the kernel waits by itself for the commands that it depends on (`KERNEL_EARLY` of the dialect).
    pub(super) fn starts_early(&self) -> bool {
        self.inner.starts_early
    }

    /// Checks what the driver would only notice when the work is submitted, or never.
    pub(super) fn check_launch(&self, bindings: usize, params: usize, launch: &Launch) -> Result<()> {
        let Inner { name, max_threads, parameters, module, .. } = &*self.inner;
        let invalid = |message| Err(HalError::InvalidUse { operation: "dispatch", message });
        let (groups, threads) = (launch.groups, launch.threads_per_group);
        if threads == 0 || threads % 32 != 0 || threads > *max_threads {
            return invalid(format!(
                "kernel `{name}`: {threads} threads per group, needed a multiple of 32 from 32 to {max_threads}"
            ));
        }
        let max_grid = module.shared.properties.max_grid;
        if groups.contains(&0) || groups.iter().zip(max_grid).any(|(&groups, max)| groups > max) {
            return invalid(format!("kernel `{name}`: {groups:?} groups, needed 1 to {max_grid:?}"));
        }
        let Some(parameters) = parameters else { return Ok(()) };
        let given = std::iter::repeat_n(size_of::<u64>(), bindings).chain((params > 0).then_some(params));
        if given.clone().ne(parameters.iter().copied()) {
            let given: Vec<usize> = given.collect();
            return invalid(format!(
                "kernel `{name}` takes parameters of {parameters:?} bytes, {given:?} given \
                 ({bindings} bindings and a block of {params} bytes)"
            ));
        }
        Ok(())
    }
}

type Slot = Arc<Mutex<Weak<Module>>>;

/// Makes kernels of texts, each text once.
#[derive(Debug)]
pub(super) struct Kernels {
    compiler: Arc<Compiler>,
    target: Target,
    cache: Option<FileCache>,
    modules: Mutex<HashMap<CacheKey, Slot>>,
}

impl Kernels {
    pub(super) fn new(compiler: Arc<Compiler>, target: Target, cache_folder: Option<PathBuf>) -> Self {
        let cache = cache_folder.map(|folder| FileCache::new(folder, CACHE_LIMIT));
        Self { compiler, target, cache, modules: Mutex::default() }
    }

    /// What texts are compiled for.
    pub(super) fn target(&self) -> Target {
        self.target
    }

    pub(super) fn compile(&self, shared: &Arc<Shared>, source: &KernelSource<'_>) -> Result<Kernel> {
        let failed = |log: String| HalError::CompileFailed { name: source.name.to_owned(), log };
        if !source.has_gpu_text() {
            return Err(failed("the kernel has no GPU text".into()));
        }
        shared.check_alive()?;
        let name = CString::new(source.name).map_err(|_| failed("the name has a zero byte".into()))?;
        let module = self.module(shared, source)?;
        let current = shared.enter()?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded; stores the function.
        unsafe { driver!(cuModuleGetFunction(&mut function, module.handle, name.as_ptr())) }.map_err(|error| {
            shared.note(error);
            failed(format!("the text has no entry of this name: {}", error.explain()))
        })?;
        let max_threads = max_threads(function).map_err(|error| shared.fail(error))?;
        let parameters = (shared.properties.driver >= PARAMETER_INFO_DRIVER).then(|| parameter_sizes(function));
        drop(current);
        let dynamic_shared = dynamic_shared(&module, source.name, function)?;
        let symbol =
            CString::new(format!("{}_starts_early", source.name)).map_err(|error| failed(error.to_string()))?;
        let starts_early = variable(&module, &symbol)?.is_some();
        let inner =
            Inner { name: source.name.into(), function, max_threads, dynamic_shared, starts_early, parameters, module };
        Ok(Kernel { inner: Arc::new(inner) })
    }

    /// The loaded code of the source's text; other threads that ask for the same text wait for it.
    fn module(&self, shared: &Arc<Shared>, source: &KernelSource<'_>) -> Result<Arc<Module>> {
        let text = dialect::whole_text(source.gpu);
        let (major, minor) = self.compiler.version();
        let options = Compiler::options(self.target).join(" ");
        let key = CacheKey::of([format!("NVRTC {major}.{minor} {options}").as_bytes(), text.as_bytes()]);
        let slot = {
            let mut modules = lock(&self.modules);
            if modules.len() >= MAX_MODULES {
                modules.retain(|_, slot| Arc::strong_count(slot) > 1 || lock(slot).strong_count() > 0);
            }
            Arc::clone(modules.entry(key).or_default())
        };
        let mut known = lock(&slot);
        if let Some(module) = known.upgrade() {
            return Ok(module);
        }
        let module = Arc::new(self.load(shared, source.name, &text, &key)?);
        *known = Arc::downgrade(&module);
        Ok(module)
    }

    fn load(&self, shared: &Arc<Shared>, name: &str, text: &str, key: &CacheKey) -> Result<Module> {
        if let Some(cache) = &self.cache
            && let Some(image) = cache.get(key)
        {
            match load_image(shared, name, &image) {
                Err(error @ HalError::CompileFailed { .. }) => {
                    tracing::warn!(%error, "a cached kernel cannot be loaded and is made again");
                    cache.remove(key);
                }
                loaded => return loaded,
            }
        }
        let started = std::time::Instant::now();
        let compiled = self.compiler.compile(name, text, self.target)?;
        tracing::debug!(name, elapsed = ?started.elapsed(), bytes = compiled.image.len(), "compiled a kernel text");
        if !compiled.log.is_empty() {
            tracing::warn!(name, log = compiled.log, "the kernel compiler warns");
        }
        let module = load_image(shared, name, &compiled.image)?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.put(key, &compiled.image)
        {
            tracing::warn!(%error, "a compiled kernel cannot be kept on disk");
        }
        Ok(module)
    }
}

fn load_image(shared: &Arc<Shared>, name: &str, image: &[u8]) -> Result<Module> {
    let mut handle = std::ptr::null_mut();
    // PTX is a string and ends with a zero byte, as NVRTC makes it.
    let loaded = {
        let _current = shared.enter()?;
        // SAFETY: the image is complete machine code or PTX; the driver copies it.
        unsafe { driver!(cuModuleLoadData(&mut handle, image.as_ptr().cast())) }
    };
    loaded.map_err(|error| match shared.fail(error) {
        HalError::Io { message, .. } => HalError::CompileFailed {
            name: name.to_owned(),
            log: format!("the driver does not load the code: {message}"),
        },
        other => other,
    })?;
    let module = Module { handle, shared: Arc::clone(shared) };
    connect_faults(&module)?;
    Ok(module)
}

/// Tells the module's kernels where to report faults, if they do.
fn connect_faults(module: &Module) -> Result<()> {
    match variable(module, FAULT_SYMBOL)? {
        Some((address, byte_len)) if byte_len == size_of::<u64>() => {
            staging::upload(&module.shared, address, &module.shared.board.address().to_le_bytes())
        }
        _ => Ok(()),
    }
}

/// The address and size of one of the module's variables, if it has it.
fn variable(module: &Module, name: &std::ffi::CStr) -> Result<Option<(u64, usize)>> {
    let shared = &module.shared;
    let (mut address, mut byte_len) = (0, 0);
    let _current = shared.enter()?;
    // SAFETY: the module is loaded; stores address and size.
    match unsafe { driver!(cuModuleGetGlobal_v2(&mut address, &mut byte_len, module.handle, name.as_ptr())) } {
        Ok(()) => Ok(Some((address, byte_len))),
        Err(error) if error.code == sys::CUresult::CUDA_ERROR_NOT_FOUND => Ok(None),
        Err(error) => Err(shared.fail(error)),
    }
}

/// What the text says with `DYNAMIC_SHARED` about the kernel, which may then be launched so.
fn dynamic_shared(module: &Module, name: &str, function: sys::CUfunction) -> Result<u32> {
    let failed = |log: String| HalError::CompileFailed { name: name.to_owned(), log };
    let symbol = CString::new(format!("{name}_dynamic_shared")).map_err(|error| failed(error.to_string()))?;
    let Some((address, _)) = variable(module, &symbol)? else { return Ok(0) };
    let shared = &module.shared;
    let mut bytes = [0; size_of::<u32>()];
    staging::download(shared, address, &mut bytes)?;
    let byte_len = u32::from_le_bytes(bytes);
    let _current = shared.enter()?;
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let signed = c_int::try_from(byte_len).unwrap_or(c_int::MAX);
    // SAFETY: the function is loaded.
    unsafe { driver!(cuFuncSetAttribute(function, attribute, signed)) }.map_err(|error| {
        shared.note(error);
        let most = shared.properties.max_shared;
        failed(format!("{byte_len} bytes of threadgroup memory, this GPU has {most}: {}", error.explain()))
    })?;
    Ok(byte_len)
}

fn max_threads(function: sys::CUfunction) -> DriverResult<u32> {
    let mut threads = 0;
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
    // SAFETY: the function is loaded; writes one number.
    unsafe { driver!(cuFuncGetAttribute(&mut threads, attribute, function)) }?;
    Ok(u32::try_from(threads).unwrap_or(0))
}

/// Bytes of the function's parameters. The context is current, and the driver has the call.
fn parameter_sizes(function: sys::CUfunction) -> Box<[usize]> {
    let size = |index| {
        let (mut offset, mut byte_len) = (0, 0);
        // SAFETY: the function is loaded; an index past the last parameter is an error.
        unsafe { driver!(cuFuncGetParamInfo(function, index, &mut offset, &mut byte_len)) }.ok().map(|()| byte_len)
    };
    (0..).map_while(size).collect()
}

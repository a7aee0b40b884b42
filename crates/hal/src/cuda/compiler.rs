//! NVRTC, NVIDIA's compiler as a library, loaded at run time.
//!
//! Its few functions are declared here, because the library's file name carries the toolkit's
//! version and the packaged ones lie outside the loader's path. Source: the NVRTC documentation.

use std::{
    ffi::{CString, OsString, c_char, c_int, c_void},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use super::{driver, lock};
use crate::{HalError, Result};

type Program = *mut c_void;
type Status = c_int;

/// The functions of the library.
struct Api {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    count_architectures: unsafe extern "C" fn(*mut c_int) -> Status,
    architectures: unsafe extern "C" fn(*mut c_int) -> Status,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> Status,
}

impl Api {
    /// # Safety
    /// `library` is NVRTC; it stays loaded as long as the functions are used.
    unsafe fn of(library: &libloading::Library) -> std::result::Result<Self, libloading::Error> {
        // SAFETY: the symbols have these types in every NVRTC since version 11.
        unsafe {
            Ok(Self {
                version: *library.get(b"nvrtcVersion\0")?,
                count_architectures: *library.get(b"nvrtcGetNumSupportedArchs\0")?,
                architectures: *library.get(b"nvrtcGetSupportedArchs\0")?,
                create: *library.get(b"nvrtcCreateProgram\0")?,
                destroy: *library.get(b"nvrtcDestroyProgram\0")?,
                compile: *library.get(b"nvrtcCompileProgram\0")?,
                log_size: *library.get(b"nvrtcGetProgramLogSize\0")?,
                log: *library.get(b"nvrtcGetProgramLog\0")?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize\0")?,
                cubin: *library.get(b"nvrtcGetCUBIN\0")?,
                ptx_size: *library.get(b"nvrtcGetPTXSize\0")?,
                ptx: *library.get(b"nvrtcGetPTX\0")?,
            })
        }
    }
}

/// A compiled text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code, or PTX text, for the driver to load.
    pub image: Vec<u8>,
    /// Warnings; empty when there are none.
    pub log: String,
}

/// What to compile for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Machine code of exactly this architecture (90 for `sm_90`).
    Machine(u32),
    /// PTX that the driver turns into code of this or a later architecture.
    Ptx(u32),
}

impl Target {
    fn option(self) -> String {
        match self {
            // The exact chip's own instructions exist from Hopper on, under names that end in `a`.
            Target::Machine(architecture @ 90..) => format!("sm_{architecture}a"),
            Target::Machine(architecture) => format!("sm_{architecture}"),
            Target::Ptx(architecture) => format!("compute_{architecture}"),
        }
    }
}

/// The compiler.
pub struct Compiler {
    api: Api,
    version: (c_int, c_int),
    architectures: Vec<u32>,
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compiler(NVRTC {}.{})", self.version.0, self.version.1)
    }
}

/// Under which names the library may be found, newest first.
fn candidates() -> Vec<OsString> {
    if cfg!(windows) {
        return ["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"].map(OsString::from).into();
    }
    const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
    const FOLDERS: [&str; 3] = ["", "/usr/local/cuda/lib64", "/opt/cuda/lib64"];
    let path = |folder: &&str, name: &str| Path::new(folder).join(name).into_os_string();
    NAMES.iter().flat_map(|name| FOLDERS.iter().map(move |folder| path(folder, name))).collect()
}

impl Compiler {
    /// The compiler found in the usual places and not newer than the driver; found once.
    pub(super) fn shared() -> Result<Arc<Self>> {
        static SHARED: OnceLock<std::result::Result<Arc<Compiler>, String>> = OnceLock::new();
        let driver = driver::initialize()?;
        let found = SHARED.get_or_init(|| {
            let mut reason = "not found in the loader's path nor below /usr/local/cuda".to_owned();
            for name in candidates() {
                match Self::open(Path::new(&name)) {
                    Ok(compiler) if compiler.version.0 <= driver / 1000 => return Ok(Arc::new(compiler)),
                    Ok(compiler) => {
                        let (major, minor) = compiler.version;
                        let driver = driver::version_text(driver);
                        reason =
                            format!("version {major}.{minor} is newer than the driver, which supports CUDA {driver}");
                    }
                    Err(error) => tracing::debug!(?name, %error, "no NVRTC"),
                }
            }
            Err(format!(
                "NVIDIA's run-time compiler (libnvrtc) cannot be used: {reason}; \
                 install the CUDA toolkit or the nvidia-cuda-nvrtc package and put it into the loader's path"
            ))
        });
        found.clone().map_err(driver::not_found)
    }

    /// The compiler in the library at `path`. It stays loaded.
    ///
    /// # Errors
    /// `DeviceNotFound` when the file is not NVRTC or cannot be loaded.
    pub fn load(path: &Path) -> Result<Arc<Self>> {
        static LOADED: Mutex<Vec<(PathBuf, Arc<Compiler>)>> = Mutex::new(Vec::new());
        let mut loaded = lock(&LOADED);
        if let Some((_, compiler)) = loaded.iter().find(|(known, _)| known == path) {
            return Ok(Arc::clone(compiler));
        }
        let compiler = Self::open(path).map_err(|error| driver::not_found(format!("NVRTC: {error}")))?;
        let compiler = Arc::new(compiler);
        loaded.push((path.to_owned(), Arc::clone(&compiler)));
        Ok(compiler)
    }

    fn open(path: &Path) -> std::result::Result<Self, String> {
        // SAFETY: the library's initialisers have no conditions.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            format!("load `{}`: {cause}", path.display())
        })?;
        // SAFETY: the library is forgotten below, that is never unloaded.
        let api = unsafe { Api::of(&library) }.map_err(|error| error.to_string())?;
        std::mem::forget(library);
        let status = |call: &str, status| match status {
            0 => Ok(()),
            failed => Err(format!("{call} returned {failed}")),
        };
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: each call writes one number.
        unsafe {
            status("nvrtcVersion", (api.version)(&mut major, &mut minor))?;
            status("nvrtcGetNumSupportedArchs", (api.count_architectures)(&mut count))?;
        }
        let mut architectures = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: the array has the length that was asked for.
        status("nvrtcGetSupportedArchs", unsafe { (api.architectures)(architectures.as_mut_ptr()) })?;
        let mut architectures: Vec<u32> =
            architectures.into_iter().filter_map(|arch| u32::try_from(arch).ok()).collect();
        architectures.sort_unstable();
        Ok(Self { api, version: (major, minor), architectures })
    }

    /// Major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Architectures that it makes machine code for, ascending: 90 for `sm_90`.
    pub fn architectures(&self) -> &[u32] {
        &self.architectures
    }

    /// What to compile for a device of `architecture`: its machine code, or else the newest PTX that
    /// the compiler knows and the device can run.
    pub fn target(&self, architecture: u32) -> Option<Target> {
        if self.architectures.contains(&architecture) {
            return Some(Target::Machine(architecture));
        }
        self.architectures.iter().rev().find(|&&known| known < architecture).map(|&known| Target::Ptx(known))
    }

    /// Options of every compilation.
    pub(super) fn options(target: Target) -> Vec<String> {
        vec![
            format!("--gpu-architecture={}", target.option()),
            "--std=c++17".into(),
            "--device-as-default-execution-space".into(),
            "--generate-line-info".into(),
        ]
    }

    /// Compiles `text`, which messages call `name`.
    ///
    /// # Errors
    /// `CompileFailed` with the log, which names lines.
    pub fn compile(&self, name: &str, text: &str, target: Target) -> Result<Compiled> {
        let failed = |log: String| HalError::CompileFailed { name: name.to_owned(), log };
        let c_text = |text: &str| CString::new(text).map_err(|_| failed("the text has a zero byte".into()));
        let (source, title) = (c_text(text)?, c_text(name)?);
        let options = Self::options(target).iter().map(|option| c_text(option)).collect::<Result<Vec<_>>>()?;
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let none = std::ptr::null();
        let mut program = std::ptr::null_mut();
        // SAFETY: the strings live until the program is destroyed; there are no headers.
        let status = unsafe { (self.api.create)(&mut program, source.as_ptr(), title.as_ptr(), 0, none, none) };
        if status != 0 {
            return Err(failed(format!("nvrtcCreateProgram returned {status}")));
        }
        let program = Guard { api: &self.api, program };
        // SAFETY: the program was created; the options are strings that live across the call.
        let status = unsafe { (self.api.compile)(program.program, options.len() as c_int, options.as_ptr()) };
        let text = program.bytes(self.api.log_size, self.api.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&text).trim_matches(['\0', '\n', ' ']).to_owned();
        if status != 0 {
            return Err(failed(if log.is_empty() { format!("nvrtcCompileProgram returned {status}") } else { log }));
        }
        let image = match target {
            Target::Machine(_) => program.bytes(self.api.cubin_size, self.api.cubin),
            Target::Ptx(_) => program.bytes(self.api.ptx_size, self.api.ptx),
        };
        match image {
            Some(image) if !image.is_empty() => Ok(Compiled { image, log }),
            _ => Err(failed(format!("NVRTC made no code for {}", target.option()))),
        }
    }
}

/// A program of NVRTC, destroyed when dropped.
struct Guard<'a> {
    api: &'a Api,
    program: Program,
}

impl Guard<'_> {
    /// One of the program's outputs.
    fn bytes(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        read: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Option<Vec<u8>> {
        let mut byte_len = 0;
        // SAFETY: writes one number.
        if unsafe { size(self.program, &mut byte_len) } != 0 {
            return None;
        }
        let mut bytes = vec![0_u8; byte_len];
        // SAFETY: the buffer has the length that was asked for.
        (unsafe { read(self.program, bytes.as_mut_ptr().cast()) } == 0).then_some(bytes)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let status = unsafe { (self.api.destroy)(&mut self.program) };
        if status != 0 {
            tracing::debug!(status, "nvrtcDestroyProgram");
        }
    }
}

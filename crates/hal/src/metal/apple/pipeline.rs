//! Texts to machine code, and machine code on disk.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use objc2::{rc::Retained, runtime::ProtocolObject};
use objc2_foundation::{NSArray, NSError, NSString, NSURL};
use objc2_metal::{
    MTLBinaryArchive, MTLBinaryArchiveDescriptor, MTLCompileOptions, MTLComputePipelineDescriptor,
    MTLComputePipelineState, MTLDevice, MTLLanguageVersion, MTLLibrary, MTLPipelineOption,
};

use super::Apple;
use crate::metal::{CompileOptions, LanguageVersion};

type Library = Retained<ProtocolObject<dyn MTLLibrary>>;
type Pipeline = Retained<ProtocolObject<dyn MTLComputePipelineState>>;
type Archive = Retained<ProtocolObject<dyn MTLBinaryArchive>>;

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
pub(super) fn describe(error: Retained<NSError>) -> String {
    format!("{} ({} {})", error.localizedDescription(), error.domain(), error.code())
}

impl Apple {
    pub(super) fn library(&self, text: &str, options: CompileOptions) -> Result<Library, String> {
        let settings = MTLCompileOptions::new();
        settings.setLanguageVersion(match options.language {
            LanguageVersion::Metal3_0 => MTLLanguageVersion::Version3_0,
            LanguageVersion::Metal3_1 => MTLLanguageVersion::Version3_1,
        });
        // `mathMode`, which takes its place, exists from macOS 15 on.
        #[allow(deprecated)]
        settings.setFastMathEnabled(options.fast_math);
        self.device.newLibraryWithSource_options_error(&NSString::from_str(text), Some(&settings)).map_err(describe)
    }

    pub(super) fn pipeline(
        &self,
        library: &ProtocolObject<dyn MTLLibrary>,
        function: &str,
        archive: Option<&Path>,
    ) -> Result<Pipeline, String> {
        let name = NSString::from_str(function);
        let found = library.newFunctionWithName(&name);
        let found = found.ok_or_else(|| format!("the text has no kernel `{function}`"))?;
        let descriptor = MTLComputePipelineDescriptor::new();
        descriptor.setLabel(Some(&name));
        descriptor.setComputeFunction(Some(&found));
        let make = || {
            self.device
                .newComputePipelineStateWithDescriptor_options_reflection_error(
                    &descriptor,
                    MTLPipelineOption::None,
                    None,
                )
                .map_err(describe)
        };
        let Some(path) = archive else { return make() };
        // Without its archive a kernel is compiled anew: slower, and right.
        let archive = self.archive(path, &descriptor);
        let archive =
            archive.inspect_err(|reason| tracing::debug!(path = %path.display(), %reason, "no binary archive"));
        if let Ok(archive) = archive {
            descriptor.setBinaryArchives(Some(&NSArray::from_retained_slice(&[archive])));
        }
        make()
    }

    /// The archive of the path, or a new one with the descriptor's kernel, which is then written there.
    fn archive(&self, path: &Path, kernel: &MTLComputePipelineDescriptor) -> Result<Archive, String> {
        if path.exists() {
            match self.open_archive(Some(path)) {
                Ok(archive) => return Ok(archive),
                Err(reason) => {
                    tracing::warn!(path = %path.display(), %reason, "a binary archive is broken and is made again");
                }
            }
        }
        let archive = self.open_archive(None)?;
        archive.addComputePipelineFunctionsWithDescriptor_error(kernel).map_err(describe)?;
        let failed = |error: std::io::Error| error.to_string();
        fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
        let unfinished = unfinished(path);
        archive.serializeToURL_error(&*url(&unfinished)?).map_err(describe)?;
        // Other processes see a whole file or none.
        fs::rename(&unfinished, path).map_err(failed)?;
        Ok(archive)
    }

    fn open_archive(&self, path: Option<&Path>) -> Result<Archive, String> {
        let descriptor = MTLBinaryArchiveDescriptor::new();
        if let Some(path) = path {
            descriptor.setUrl(Some(&*url(path)?));
        }
        self.device.newBinaryArchiveWithDescriptor_error(&descriptor).map_err(describe)
    }
}

pub(super) fn url(path: &Path) -> Result<Retained<NSURL>, String> {
    let text = path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
    Ok(NSURL::fileURLWithPath(&NSString::from_str(text)))
}

fn unfinished(path: &Path) -> PathBuf {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    path.with_extension(format!("{}-{serial}.tmp", std::process::id()))
}

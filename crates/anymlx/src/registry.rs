//! Kernels by name and by typed key.

use std::{
    collections::HashMap,
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use anymlx_formats::quant::TensorType;
use anymlx_hal::{Context, CpuKernel, Kernel, KernelSource};

use crate::{MlxError, Result};

/// Names a built-in kernel: the one place where its name is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelKey {
    /// Operation: the name of its folder.
    pub operation: &'static str,
    /// What the kernel chiefly reads.
    pub element: TensorType,
    /// Empty, or what sets it apart from other kernels of the operation.
    pub variant: &'static str,
}

impl KernelKey {
    /// Entry point: `operation_element` or `operation_element_variant`, in lower case.
    pub fn name(&self) -> String {
        let element = self.element_name();
        match self.variant {
            "" => format!("{}_{element}", self.operation),
            variant => format!("{}_{element}_{variant}", self.operation),
        }
    }
}

impl KernelKey {
    /// The element in an identifier: `q4_k`, `mlx_affine_4_64_bf16`.
    fn element_name(&self) -> String {
        match self.element {
            TensorType::Mlx(layout) => {
                let packing = layout.quantization();
                let (mode, bits, group) = (packing.mode(), packing.bits(), packing.group_size());
                format!("mlx_{mode}_{bits}_{group}_{}", layout.scales())
            }
            other => other.name().to_ascii_lowercase(),
        }
    }

    /// Tells a text for GPUs which element it is compiled for.
    pub(crate) fn element_text(&self) -> String {
        let details = match self.element {
            TensorType::Quantized(_) => "#define ELEMENT_IS_QUANTIZED 1\n".to_owned(),
            TensorType::Dense(_) => String::new(),
            TensorType::Mlx(layout) => {
                let packing = layout.quantization();
                let (bits, group, scales) = (packing.bits(), packing.group_size(), layout.scales());
                let mode = packing.mode().name().to_ascii_uppercase();
                format!(
                    "#define MLX_{mode} 1\n#define MLX_BITS {bits}\n#define MLX_GROUP {group}\n#define MLX_SCALES {scales}\n"
                )
            }
        };
        let tables = crate::ops::gpu::tables::text(self.element);
        format!("#define ELEMENT {}\n{details}{tables}", self.element_name())
    }
}

/// A built-in kernel: its key and its texts.
#[derive(Debug, Clone)]
pub(crate) struct BuiltIn {
    pub(crate) key: KernelKey,
    /// The portable text; empty where there is none.
    pub(crate) gpu: &'static str,
    pub(crate) cpu: CpuKernel,
}

struct Registered {
    gpu: String,
    cpu: Option<CpuKernel>,
    compiled: Option<Kernel>,
}

/// The kernels of one device, shareable across threads. Each is compiled on first use.
pub struct KernelRegistry {
    context: Context,
    built_in: RwLock<HashMap<KernelKey, Kernel>>,
    registered: RwLock<HashMap<String, Registered>>,
}

fn reading<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn writing<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl KernelRegistry {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, built_in: RwLock::default(), registered: RwLock::default() }
    }

    /// Adds a kernel of one's own under `source.name`.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty name or a name that is taken.
    pub fn register(&self, source: KernelSource<'_>) -> Result<()> {
        if source.name.is_empty() {
            return Err(MlxError::invalid("register kernel", "the name is empty"));
        }
        let mut registered = writing(&self.registered);
        if registered.contains_key(source.name) {
            return Err(MlxError::invalid("register kernel", format_args!("`{}` is registered already", source.name)));
        }
        let entry = Registered { gpu: source.gpu.to_owned(), cpu: source.cpu, compiled: None };
        registered.insert(source.name.to_owned(), entry);
        Ok(())
    }

    /// A registered kernel, compiled.
    ///
    /// # Errors
    /// `KernelNotFound` with the nearest registered name; `ShaderCompilationError`.
    pub fn get(&self, name: &str) -> Result<Kernel> {
        let mut registered = writing(&self.registered);
        let Some(entry) = registered.get_mut(name) else {
            let names = registered.keys().map(String::as_str);
            let nearest = nearest_name(name, names).map(str::to_owned);
            return Err(MlxError::KernelNotFound { name: name.to_owned(), nearest });
        };
        if let Some(kernel) = &entry.compiled {
            return Ok(kernel.clone());
        }
        let kernel = self.context.compile(&KernelSource { name, gpu: &entry.gpu, cpu: entry.cpu.clone() })?;
        entry.compiled = Some(kernel.clone());
        Ok(kernel)
    }

    /// A built-in kernel, compiled.
    pub(crate) fn built_in(&self, source: &BuiltIn) -> Result<Kernel> {
        if let Some(kernel) = reading(&self.built_in).get(&source.key) {
            return Ok(kernel.clone());
        }
        let name = source.key.name();
        let gpu = if source.gpu.is_empty() { String::new() } else { source.key.element_text() + source.gpu };
        let kernel = self.context.compile(&KernelSource { name: &name, gpu: &gpu, cpu: Some(source.cpu.clone()) })?;
        Ok(writing(&self.built_in).entry(source.key).or_insert(kernel).clone())
    }

    /// Names of the registered kernels, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = reading(&self.registered).keys().cloned().collect();
        names.sort();
        names
    }
}

/// The candidate with the least edit distance, if it is near enough to be meant.
pub(crate) fn nearest_name<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = name.len().div_ceil(3).max(2);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

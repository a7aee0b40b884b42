//! What kernels for GPUs share: device code (`*.h` beside this file) and the list of all their texts.

pub(super) mod stream;
pub(crate) mod tables;

use anymlx_formats::{
    mlx::{MlxType, Mode, Quantization},
    quant::{QuantType, TensorType},
};
use anymlx_hal::dialect;

use super::{attention, check::Check, panel_matmul, reads_8_bit_activations};
use crate::{DType, KernelKey, Result};

/// The quantised layouts that the fused kernels for a single token read.
pub(super) const STREAMED: [QuantType; 19] = [
    QuantType::Q4_0,
    QuantType::Q4_1,
    QuantType::Q5_0,
    QuantType::Q5_1,
    QuantType::Q8_0,
    QuantType::Q2_K,
    QuantType::Q3_K,
    QuantType::Q4_K,
    QuantType::Q5_K,
    QuantType::Q6_K,
    QuantType::IQ2_XXS,
    QuantType::IQ2_XS,
    QuantType::IQ2_S,
    QuantType::IQ3_XXS,
    QuantType::IQ3_S,
    QuantType::IQ4_NL,
    QuantType::IQ4_XS,
    QuantType::MXFP4,
    QuantType::NVFP4,
];
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// True for the encodings of weights that GPUs read.
pub(super) fn has_format(encoding: TensorType) -> bool {
    match encoding {
        TensorType::Dense(dtype) => FLOATS.contains(&dtype),
        TensorType::Quantized(_) => true,
        TensorType::Mlx(_) => true,
    }
}

/// True for the encodings that the fused kernels for a single token read: those of [`STREAMED`] and MLX's with integer codes.
pub(super) fn is_streamed(encoding: TensorType) -> bool {
    match encoding {
        TensorType::Dense(_) => false,
        TensorType::Quantized(quant) => STREAMED.contains(&quant),
        TensorType::Mlx(_) => reads_8_bit_activations(encoding),
    }
}

/// The encodings of weights in GGUF files.
pub(super) fn file_encodings() -> impl Iterator<Item = TensorType> {
    let quantized = QuantType::ALL.iter().copied().map(TensorType::Quantized);
    FLOATS.into_iter().map(TensorType::Dense).chain(quantized)
}

/// The encoding has kernels for GPUs, or an error that says so.
pub(super) fn check_format(check: Check, name: &str, encoding: TensorType) -> Result<()> {
    check
        .that(has_format(encoding), format_args!("{name} is {encoding}, for which there is no GPU kernel; use the CPU"))
}

/// Which compilers a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TextLanguage {
    /// All: the portable dialect.
    Portable,
    /// CUDA C++ for this architecture and later ones (80 for `sm_80`).
    CudaFrom(u32),
    /// CUDA C++ for this architecture alone, with the instructions that no other has (90 for `sm_90a`).
    CudaExactly(u32),
    /// Metal's own language, with the dialect's header.
    Metal,
}

/// The text of built-in kernels of one operation for one encoding, as compilers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuText {
    /// Operation, and the encoding where the text depends on it: `matmul q4_k`.
    pub name: String,
    /// Which compilers it is for.
    pub language: TextLanguage,
    /// The whole text, the dialect's header included.
    pub text: String,
}

/// Every text of the library, for tools that check all of them without a device.
pub fn texts() -> Vec<GpuText> {
    let single = [TensorType::Dense(DType::F32)];
    let caches = [DType::F16, DType::F32].map(TensorType::Dense);
    let quantized_caches = super::kv_cache_quantize::ENCODINGS.map(TensorType::Quantized);
    let weights: Vec<TensorType> = file_encodings().collect();
    let streamed = STREAMED.map(TensorType::Quantized);
    let layouts: Vec<TensorType> = mlx_layouts().into_iter().map(TensorType::Mlx).collect();
    let streamed_layouts: Vec<TensorType> = layouts.iter().copied().filter(|&layout| is_streamed(layout)).collect();
    let portable: [(&'static str, &'static str, &[TensorType]); 34] = [
        ("add_rms_norm", super::add_rms_norm::GPU, &single),
        ("argmax", super::argmax::GPU, &single),
        ("attention", super::attention::gpu::GPU, &caches),
        ("bandwidth", crate::bandwidth::GPU, &single),
        ("copy", super::copy::GPU, &single),
        ("elementwise", super::elementwise::GPU, &single),
        ("gated_activation", super::gated_activation::GPU, &single),
        ("gated_matmul", super::matmul::gpu::GATED_MATMUL, &weights),
        ("gated_projection", super::gated_projection::gpu::TEXTS.blocks, &streamed),
        ("gated_projection", super::gated_projection::gpu::TEXTS.mlx, &streamed_layouts),
        ("gather_rows", super::gather_rows::GPU, &weights),
        ("increment", super::increment::GPU, &single),
        ("kv_cache_expand", super::kv_cache_expand::GPU, &quantized_caches),
        ("kv_cache_quantize", super::kv_cache_quantize::GPU, &quantized_caches),
        ("kv_cache_write", super::kv_cache_write::GPU, &single),
        ("matmul", super::matmul::gpu::MATMUL, &weights),
        ("mlx_gather_rows", super::gather_rows::mlx::GPU, &layouts),
        ("mlx_matmul", super::matmul::mlx::gpu::GPU, &layouts),
        ("mlx_panels", super::panels::MLX, &layouts),
        ("panels", super::panels::GPU, &weights),
        ("project", super::project::gpu::TEXTS.blocks, &streamed),
        ("project", super::project::gpu::TEXTS.mlx, &streamed_layouts),
        ("project_add", super::project_add::gpu::TEXTS.blocks, &streamed),
        ("project_add", super::project_add::gpu::TEXTS.mlx, &streamed_layouts),
        ("project_and_cache", super::project_and_cache::gpu::TEXTS.blocks, &streamed),
        ("project_and_cache", super::project_and_cache::gpu::TEXTS.mlx, &streamed_layouts),
        ("quantize_activations", super::quantize_activations::GPU, &single),
        ("rms_norm", super::rms_norm::GPU, &single),
        ("rope", super::rope::GPU, &single),
        ("rotate_and_cache", super::rotate_and_cache::gpu::GPU, &caches),
        ("sample", super::sample::GPU, &single),
        ("softmax", super::softmax::GPU, &single),
        ("transfer", anymlx_hal::metal::TRANSFER, &single),
        ("transpose", super::transpose::GPU, &single),
    ];
    let text_of = |operation: &'static str, variant: &str, text: &str, element, language| {
        let key = KernelKey { operation, element, variant: "" };
        let text = dialect::whole_text(&(key.element_text() + text));
        GpuText { name: format!("{operation} {variant}").trim_end().to_owned(), language, text }
    };
    let metal: [(&'static str, &'static str, &[TensorType]); 2] = [
        ("attention_simdgroup", attention::simdgroup::METAL, &caches),
        ("matmul_simdgroup", super::matmul::gpu::MATMUL_SIMDGROUP, &weights),
    ];
    let of_operation = |language, (operation, text, elements): (&'static str, &str, &[TensorType])| {
        let of_element = |&element: &TensorType| {
            let variant = if elements.len() == 1 { String::new() } else { element.to_string().to_ascii_lowercase() };
            text_of(operation, &variant, text, element, language)
        };
        elements.iter().map(of_element).collect::<Vec<_>>()
    };
    let products = panel_matmul::KINDS.iter().flat_map(|kind| kind.texts).map(|(variant, text)| {
        let language = TextLanguage::CudaExactly(panel_matmul::ARCHITECTURE);
        text_of("panel_matmul", variant, text, panel_matmul::ELEMENT, language)
    });
    let language = TextLanguage::CudaExactly(attention::tiles::ARCHITECTURE);
    let tiles = attention::tiles::KERNELS
        .map(|kernel| text_of("attention_tiles", kernel.variant, kernel.text, attention::tiles::ELEMENT, language));
    let portable = portable.into_iter().flat_map(|text| of_operation(TextLanguage::Portable, text));
    let metal = metal.into_iter().flat_map(|text| of_operation(TextLanguage::Metal, text));
    portable.chain(metal).chain(products).chain(tiles).collect()
}

/// Layouts of MLX: every number of bits and mode, with every group size and type of scales among them.
pub(crate) fn mlx_layouts() -> Vec<MlxType> {
    let affine = [
        (1, 32, DType::F32),
        (2, 32, DType::F32),
        (3, 64, DType::F16),
        (4, 64, DType::BF16),
        (5, 128, DType::BF16),
        (6, 32, DType::F16),
        (8, 128, DType::F32),
        (8, 64, DType::BF16),
    ];
    let affine = affine.map(|(bits, group, scales)| (Mode::Affine, bits, group, scales));
    let others = [(Mode::Mxfp4, 4, 32, DType::U8), (Mode::Mxfp8, 8, 32, DType::U8), (Mode::Nvfp4, 4, 16, DType::U8)];
    let layout = |(mode, bits, group, scales)| MlxType::new(Quantization::new(mode, bits, group).ok()?, scales).ok();
    affine.into_iter().chain(others).filter_map(layout).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_text_is_listed() {
        let texts = texts();
        let names: BTreeSet<&str> = texts.iter().map(|text| text.name.as_str()).collect();
        assert_eq!(names.len(), texts.len(), "names differ");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
        for file in fs::read_dir(folder).unwrap().flat_map(|entry| fs::read_dir(entry.unwrap().path())).flatten() {
            let file = file.unwrap().file_name().into_string().unwrap();
            let text = [".gpu.cpp", ".cu", ".metal"].iter().find_map(|ending| file.strip_suffix(ending));
            if let Some(operation) = text {
                let listed = names.iter().any(|name| name.split(' ').next() == Some(operation));
                assert!(listed, "{operation} has a text and is not in the list");
            }
        }
        assert!(texts.iter().all(|text| text.text.contains("KERNEL")));
    }

    #[test]
    fn products_and_gathers_have_the_same_formats() {
        for &quant in QuantType::ALL {
            let encoding = TensorType::Quantized(quant);
            assert_eq!(has_format(encoding), super::super::matmul::can_multiply(encoding), "{quant:?}");
        }
    }
}

//! Kernels that stream weights past one row of activations (`stream.h`): when they apply, and their launch.

use anymlx_formats::quant::{QuantType, TensorType};
use bytemuck::{Pod, Zeroable};

use crate::{
    BackendKind, Binding, CommandEncoder, Kernel, KernelKey, Launch, MlxBuffer, Result, Weight,
    ops::{
        RmsNormParams,
        check::Check,
        launch,
        matmul::{self, MatmulInput, Prepared},
        project::{LayerInput, Projection},
    },
    read,
};

/// Columns of activations that every kernel takes, as `WIDTH` of the text.
pub(in crate::ops) const WIDTH: usize = 8192;
/// Columns that `_wide` kernels take, as `WIDE` of the text.
pub(in crate::ops) const WIDE: usize = 16_384;
/// Columns that any kernel takes on Apple's GPUs, as both of the text there.
const METAL_WIDTH: usize = 6144;

/// The norm of a text's parameter block.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(in crate::ops) struct NormBlock {
    columns: u32,
    is_normed: u32,
    epsilon: f32,
    weight_offset: f32,
}

/// The row of activations of a problem that the kernels take.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct StreamInput<'a> {
    pub(in crate::ops) row: &'a MlxBuffer,
    /// Weight and parameters of the norm.
    pub(in crate::ops) norm: Option<(&'a MlxBuffer, RmsNormParams)>,
    pub(in crate::ops) columns: usize,
}

impl<'a> StreamInput<'a> {
    /// The input, if kernels of `width` columns take it and all of `weights`. They quantise it, so it must have a place
    /// for its 8-bit form.
    pub(in crate::ops) fn of(
        encoder: &CommandEncoder,
        input: LayerInput<'a>,
        weights: &[&Weight],
        width: usize,
    ) -> Option<Self> {
        let device = encoder.device();
        if !device.runs_gpu_kernels() {
            return None;
        }
        let (row, norm, form) = match input {
            LayerInput::Rows(form) => (form.values, None, form),
            LayerInput::Normed { rows, weight, params, normed } => (rows, Some((weight, params)), normed),
        };
        let columns = row.shape().last().copied().unwrap_or(0);
        let limit = if device.info().backend == BackendKind::Metal { METAL_WIDTH } else { width };
        let rows = row.shape().iter().rev().skip(1).product::<usize>();
        let aligned = |buffer: &MlxBuffer| buffer.byte_offset().is_multiple_of(16);
        let fits = applies(rows, columns, limit, weights.iter().map(|weight| weight.encoding()))
            && form.quantized.is_some()
            && aligned(row)
            && norm.is_none_or(|(weight, _)| aligned(weight))
            && weights.iter().all(|weight| aligned(weight.data()));
        fits.then_some(Self { row, norm, columns })
    }

    pub(in crate::ops) fn norm_block(&self, check: Check) -> Result<NormBlock> {
        let (is_normed, epsilon, weight_offset) = match self.norm {
            Some((_, RmsNormParams { epsilon, weight_offset })) => (1, epsilon, weight_offset),
            None => (0, 0.0, 0.0),
        };
        Ok(NormBlock { columns: check.u32("columns", self.columns)?, is_normed, epsilon, weight_offset })
    }

    /// What is bound for the norm's weight; without a norm the kernel never reads it.
    pub(in crate::ops) fn norm_binding(&self) -> &'a MlxBuffer {
        self.norm.map_or(self.row, |(weight, _)| weight)
    }
}

/// Encodings of the last of three matrices of one kernel; the first two have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Third {
    Same,
    Q6K,
    Q8_0,
}

impl Third {
    /// `None` where each matrix takes a kernel of its own.
    pub(in crate::ops) fn of(encodings: [TensorType; 3]) -> Option<Self> {
        let [first, second, third] = encodings;
        if first != second {
            return None;
        }
        match third {
            same if same == first => Some(Self::Same),
            _ if matches!(first, TensorType::Mlx(_)) || super::tables::has_any(first) => None,
            TensorType::Quantized(QuantType::Q6_K) => Some(Self::Q6K),
            TensorType::Quantized(QuantType::Q8_0) => Some(Self::Q8_0),
            _ => None,
        }
    }
}

fn applies(rows: usize, columns: usize, width: usize, encodings: impl IntoIterator<Item = TensorType>) -> bool {
    rows == 1
        && columns > 0
        && columns <= width
        && columns.is_multiple_of(32)
        && encodings.into_iter().all(super::is_streamed)
}

/// What plain operations would refuse is refused with their messages.
pub(in crate::ops) fn check_operands(check: Check, input: LayerInput<'_>, projection: Projection<'_>) -> Result<()> {
    let form = match input {
        LayerInput::Rows(form) => form,
        LayerInput::Normed { rows, weight, normed, .. } => {
            check.dtype("input", rows, &[crate::DType::F32])?;
            check.dtype("norm weight", weight, &[crate::DType::F32])?;
            let (_, columns) = check.rows("input", rows)?;
            check.shape("norm weight", weight, &[columns])?;
            check.shape("normed", normed.values, rows.shape())?;
            normed
        }
    };
    // The 8-bit form is not read.
    let form = MatmulInput { quantized: None, ..form };
    Prepared::new(check, form, &[("weight", projection.weight)], projection.output)?;
    if let Some(bias) = projection.bias {
        check.dtype("bias", bias, &[crate::DType::F32])?;
        check.shape("bias", bias, &[projection.weight.rows()])?;
    }
    Ok(())
}

/// The bindings of a matrix.
pub(in crate::ops) fn weight_bindings(weight: &Weight) -> Vec<Binding<'_>> {
    match weight.encoding() {
        TensorType::Mlx(_) => matmul::mlx::buffers(weight).map(read).into(),
        _ => vec![read(weight.data())],
    }
}

/// Threadgroups for `pairs` pairs of rows, and how they are launched.
pub(in crate::ops) fn launch(encoder: &CommandEncoder, check: Check, pairs: usize) -> Result<Launch> {
    let info = encoder.device().info();
    // As `THREADS` of the text.
    let threads_per_group = if info.backend == BackendKind::Metal { 128 } else { 512 };
    let simdgroups = threads_per_group as usize / 32;
    let groups = pairs.div_ceil(simdgroups).clamp(1, info.compute_units.max(1));
    // Fewer pairs than simdgroups are spread: each multiprocessor has its own way to memory.
    let groups = groups.max(pairs.min(info.compute_units));
    Ok(Launch { groups: [check.u32("groups", groups)?, 1, 1], threads_per_group, items: 1, items_per_chunk: 1 })
}

/// The texts of an operation that streams weights, for the two ways in which they are stored.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct StreamTexts {
    pub(in crate::ops) blocks: &'static str,
    /// For layouts of MLX.
    pub(in crate::ops) mlx: &'static str,
}

/// A kernel of the text for the encoding.
pub(in crate::ops) fn kernel(
    encoder: &CommandEncoder,
    operation: &'static str,
    element: TensorType,
    variant: &'static str,
    texts: StreamTexts,
) -> Result<Kernel> {
    let text = if matches!(element, TensorType::Mlx(_)) { texts.mlx } else { texts.blocks };
    let key = KernelKey { operation, element, variant };
    launch::gpu_kernel(encoder, Check { operation }, key, text)
}

#[cfg(test)]
mod tests {
    use anymlx_formats::DType;

    use super::*;

    #[test]
    fn three_matrices_share_a_kernel_where_one_is_compiled() {
        let [q4, q5, q6, q8] =
            [QuantType::Q4_K, QuantType::Q5_K, QuantType::Q6_K, QuantType::Q8_0].map(TensorType::Quantized);
        assert_eq!(Third::of([q4, q4, q4]), Some(Third::Same));
        assert_eq!(Third::of([q6, q6, q6]), Some(Third::Same));
        assert_eq!(Third::of([q4, q4, q6]), Some(Third::Q6K));
        assert_eq!(Third::of([q5, q5, q8]), Some(Third::Q8_0));
        assert_eq!(Third::of([q4, q4, q5]), None);
        assert_eq!(Third::of([q4, q6, q6]), None);
    }

    #[test]
    fn one_row_of_quantised_weights_streams() {
        let q4 = TensorType::Quantized(QuantType::Q4_K);
        assert!(applies(1, 4096, WIDTH, [q4]));
        assert!(applies(1, 14_336, WIDE, [q4, q4]));
        assert!(!applies(1, 14_336, WIDTH, [q4]));
        assert!(!applies(2, 4096, WIDTH, [q4]));
        assert!(!applies(1, 4096, WIDTH, [q4, TensorType::Dense(DType::F16)]));
        assert!(!applies(1, 0, WIDTH, [q4]));
    }
}

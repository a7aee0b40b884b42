//! Matrices in the form in which tensor cores read them: bf16, cut into panels of 64 columns, with the
//! 16-byte pieces of a row where the hardware expects them. `gpu/panels.h` tells the layout.

#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::{check::Check, launch, matmul, rms_norm::RmsNormParams};
use crate::{CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, TensorType, Weight, read, write};

pub(super) const GPU: &str = gpu_text!(
    "../gpu/codes.h",
    "../gpu/quant.h",
    "../gpu/quant_codebook.h",
    "../gpu/dense.h",
    "../gpu/panels.h",
    "panels.gpu.cpp"
);
/// For weights in MLX's layout.
pub(super) const MLX: &str = gpu_text!("../gpu/codes.h", "../gpu/mlx.h", "../gpu/panels.h", "mlx_panels.gpu.cpp");

/// Columns of a panel.
pub(super) const WIDTH: usize = 64;
/// Rows that belong together: a panel has a multiple of them.
pub(super) const GROUP: usize = 8;
/// Rows and columns of weights that a threadgroup unpacks.
const PART: (usize, usize) = (16, 1024);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct WeightBlock {
    rows: u32,
    columns: u32,
    stride: u32,
    first: u32,
    spread: u32,
    vector_columns: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RowsBlock {
    columns: u32,
    vector_columns: u32,
    stride: u32,
    epsilon: f32,
    weight_offset: f32,
}

/// The size of a matrix in panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PanelShape {
    /// Rows of a panel: a multiple of [`GROUP`].
    pub(super) stride: usize,
    pub(super) columns: usize,
}

impl PanelShape {
    /// For a matrix of `rows` by `columns`.
    pub(super) fn of(rows: usize, columns: usize) -> Self {
        Self { stride: rows.next_multiple_of(GROUP), columns }
    }

    /// `None` when there are more bytes than can be counted.
    pub(super) fn byte_len(self) -> Option<usize> {
        let panels = self.columns.div_ceil(WIDTH);
        panels.checked_mul(self.stride)?.checked_mul(WIDTH * DType::BF16.size_of())
    }
}

/// Where the rows of a matrix stand among those of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PanelPlace {
    /// The first row: a multiple of [`GROUP`].
    pub(super) first: usize,
    /// Of how many matrices the groups of rows take turns.
    pub(super) interleaved: usize,
}

/// Unpacks a weight into panels of `shape` in `panels`.
pub(super) fn write_weight(
    encoder: &mut CommandEncoder,
    check: Check,
    weight: &Weight,
    panels: &MlxBuffer,
    shape: PanelShape,
    place: PanelPlace,
) -> Result<()> {
    // A format's blocks are read up to 16 bytes at a time.
    let at = weight.data().byte_offset();
    let aligned = matches!(weight.encoding(), TensorType::Dense(_)) || at.is_multiple_of(16);
    check.that(aligned, format_args!("a matrix begins at byte {at}, a GPU needs a multiple of 16"))?;
    let block = WeightBlock {
        rows: check.u32("weight rows", weight.rows())?,
        columns: check.u32("columns", weight.columns())?,
        stride: check.u32("panel rows", shape.stride)?,
        first: check.u32("first row", place.first)?,
        spread: check.u32("interleaved matrices", place.interleaved)?,
        vector_columns: launch::vector_columns(weight.columns(), &[weight.data()]),
    };
    let key = KernelKey { operation: "panels", element: weight.encoding(), variant: "" };
    let columns = weight.columns().div_ceil(PART.1);
    let rows = weight.rows().next_multiple_of(GROUP).div_ceil(PART.0);
    let launch = Launch {
        groups: [check.u32("columns", columns)?, check.u32("rows", rows)?, 1],
        threads_per_group: 256,
        ..Launch::default()
    };
    if matmul::mlx::layout_of(weight).is_some() {
        let kernel = launch::gpu_kernel(encoder, check, key, MLX)?;
        let [packed, scales, biases] = matmul::mlx::buffers(weight);
        return encoder.dispatch(&kernel, &[read(packed), read(scales), read(biases), write(panels)], &block, launch);
    }
    let kernel = launch::gpu_kernel(encoder, check, key, GPU)?;
    encoder.dispatch(&kernel, &[read(weight.data()), write(panels)], &block, launch)
}

/// A norm of rows on their way into panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct PanelNorm<'a> {
    /// `f32` `[columns]`.
    pub(super) weight: &'a MlxBuffer,
    pub(super) params: RmsNormParams,
}

/// Writes `f32` rows, normed where there is a norm, into panels of `shape`. The rows between the last one and
/// the panel's end are left as they are.
pub(super) fn write_rows(
    encoder: &mut CommandEncoder,
    check: Check,
    rows: &MlxBuffer,
    norm: Option<PanelNorm<'_>>,
    panels: &MlxBuffer,
    shape: PanelShape,
) -> Result<()> {
    let (count, columns) = check.rows("rows", rows)?;
    let params = norm.map_or(RmsNormParams { epsilon: 0.0, weight_offset: 0.0 }, |norm| norm.params);
    let weight = norm.map(|norm| norm.weight);
    let block = RowsBlock {
        columns: check.u32("columns", columns)?,
        vector_columns: launch::vector_columns(columns, &[rows, weight.unwrap_or(rows)]),
        stride: check.u32("panel rows", shape.stride)?,
        epsilon: params.epsilon,
        weight_offset: params.weight_offset,
    };
    let variant = if norm.is_some() { "normed" } else { "rows" };
    let key = KernelKey { operation: "panels", element: TensorType::Dense(DType::F32), variant };
    let kernel = launch::gpu_kernel(encoder, check, key, GPU)?;
    let launch = Launch {
        groups: [check.u32("rows", count)?, 1, 1],
        threads_per_group: launch::threads_for(columns.div_ceil(8)),
        ..Launch::default()
    };
    match weight {
        Some(weight) => encoder.dispatch(&kernel, &[read(rows), read(weight), write(panels)], &block, launch),
        None => encoder.dispatch(&kernel, &[read(rows), write(panels)], &block, launch),
    }
}

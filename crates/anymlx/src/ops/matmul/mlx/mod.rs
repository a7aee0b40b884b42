//! Products with matrices in MLX's layout: codes, scales and biases in buffers of their own, read as they are stored.
//!
//! * `cpu.rs` unpacks some rows at a time and hands them to the methods of the other types.
//! * `unpack.rs` is how.
//! * `gpu.rs` chooses among the kernels of `mlx_matmul.gpu.cpp`.

mod cpu;
pub(in crate::ops) mod gpu;
#[cfg(test)]
pub(in crate::ops) mod tests;
mod unpack;

use anymlx_formats::{
    DType,
    mlx::{MlxType, Mode, Quantization},
    quant::TensorType,
};
use bytemuck::{Pod, Zeroable};

use super::{Prepared, lanes};
use crate::{
    CommandEncoder, KernelFault, KernelKey, Launch, MlxBuffer, Result, Weight, read, registry::BuiltIn, write,
};

/// A layout as kernels get it.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(in crate::ops) struct LayoutNumbers {
    mode: u32,
    bits: u32,
    group: u32,
    scales: u32,
}

const SCALE_TYPES: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::U8];

impl From<MlxType> for LayoutNumbers {
    fn from(layout: MlxType) -> Self {
        let packing = layout.quantization();
        // A layout has no other types.
        let scales = SCALE_TYPES.iter().position(|&known| known == layout.scales()).unwrap_or(0) as u32;
        Self { mode: packing.mode() as u32, bits: packing.bits(), group: packing.group_size(), scales }
    }
}

impl LayoutNumbers {
    pub(in crate::ops) fn layout(self) -> std::result::Result<MlxType, KernelFault> {
        let mode = Mode::ALL.into_iter().find(|mode| *mode as u32 == self.mode).ok_or("unknown mode")?;
        let scales = *SCALE_TYPES.get(self.scales as usize).ok_or("unknown type of scales")?;
        Ok(MlxType::new(Quantization::new(mode, self.bits, self.group)?, scales)?)
    }
}

/// The layout of a matrix of MLX.
pub(in crate::ops) fn layout_of(weight: &Weight) -> Option<MlxType> {
    match weight.encoding() {
        TensorType::Mlx(layout) => Some(layout),
        _ => None,
    }
}

/// True where the codes are integers of 8 bits times a scale, so that products with 8-bit activations are possible.
pub(super) fn has_integer_codes(layout: MlxType) -> bool {
    layout.quantization().mode() != Mode::Mxfp8
}

/// Codes, scales and biases; in modes without biases the scales take their place, and are not read as such.
pub(in crate::ops) fn buffers(weight: &Weight) -> [&MlxBuffer; 3] {
    let scales = weight.scales().unwrap_or(weight.data());
    [weight.data(), scales, weight.biases().unwrap_or(scales)]
}

/// Records a product.
pub(super) fn matmul(
    encoder: &mut CommandEncoder,
    prepared: &Prepared<'_>,
    (weight, layout): (&Weight, MlxType),
    output: &MlxBuffer,
    bias: Option<&MlxBuffer>,
) -> Result<()> {
    if encoder.device().runs_gpu_kernels() {
        return gpu::matmul(encoder, prepared, (weight, layout), output, bias);
    }
    let Prepared { check, input, problem, plan, .. } = prepared;
    let level = encoder.device().cpu_level();
    let block = cpu::Block {
        tokens: check.u32("input rows", problem.tokens)?,
        rows: check.u32("weight rows", problem.rows)?,
        columns: check.u32("columns", problem.columns)?,
        layout: layout.into(),
        quantized_input: u32::from(problem.quantized_input),
        terms: check.u32("terms", problem.terms)?,
        level: level as u32,
        tiled: u32::from(plan.tiled),
        token_block: check.u32("token block", plan.token_block)?,
    };
    let key = KernelKey { operation: "matmul", element: weight.encoding(), variant: level.name() };
    let kernel =
        encoder.device().kernels().built_in(&BuiltIn { key, gpu: "", cpu: lanes::kernel::<cpu::MlxMatmul>(level) })?;
    let [packed, scales, biases] = buffers(weight);
    let mut bindings = vec![read(input), read(packed), read(scales), read(biases), write(output)];
    bindings.extend(bias.map(read));
    let groups = [block.rows, block.tokens, 1];
    let launch = Launch { groups, threads_per_group: 256, items: plan.items, items_per_chunk: plan.items_per_chunk };
    encoder.dispatch(&kernel, &bindings, &block, launch)
}

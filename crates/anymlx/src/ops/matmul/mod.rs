//! Products with weight matrices.
//!
//! * `select.rs` chooses the method and the partition: a pure function of the problem.
//! * `part.rs` is what a method does: sixteen weight rows times a few tokens.
//! * `cpu.rs` walks the parts and writes the output.
//! * `quantized/` and `dense/` hold the methods.
//! * `mlx/` multiplies matrices in MLX's layout, whose scales lie apart.
//! * `gpu.rs` chooses among the kernels for GPUs.

pub(in crate::ops) mod cpu;
mod dense;
pub(in crate::ops) mod gpu;
pub(in crate::ops) mod mlx;
mod part;
mod quantized;
mod select;
#[cfg(test)]
mod tests;

use anymlx_formats::quant::TensorType;

use super::{check::Check, lanes, quantize_activations::check_quantized};
use crate::{
    Binding, CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, Weight, read, registry::BuiltIn, write,
};
use select::{Plan, Problem};

/// True for the encodings of weights that [`matmul`] multiplies.
pub fn can_multiply(encoding: TensorType) -> bool {
    match encoding {
        TensorType::Dense(dtype) => matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
        TensorType::Quantized(_) => true,
        TensorType::Mlx(_) => true,
    }
}

/// True for the encodings of weights whose products use the 8-bit form of activations, where it is given.
pub fn reads_8_bit_activations(encoding: TensorType) -> bool {
    match encoding {
        TensorType::Dense(_) => false,
        TensorType::Quantized(_) => true,
        TensorType::Mlx(layout) => mlx::has_integer_codes(layout),
    }
}

/// The left side of a product.
#[derive(Debug, Clone, Copy)]
pub struct MatmulInput<'a> {
    /// `f32` `[.., columns]`.
    pub values: &'a MlxBuffer,
    /// The same rows as [`quantize_activations`](super::quantize_activations()) makes them. Products with quantised
    /// weights then use integer arithmetic; without, they use `values` as they are, which is exact but slower. Dense
    /// weights always use `values`. With two rows for each row of `values`, as
    /// [`quantize_activations_refined`](super::quantize_activations_refined) makes them, the products of both are added.
    pub quantized: Option<&'a MlxBuffer>,
}

impl<'a> From<&'a MlxBuffer> for MatmulInput<'a> {
    /// `f32` activations without an 8-bit form.
    fn from(values: &'a MlxBuffer) -> Self {
        Self { values, quantized: None }
    }
}

/// `output[t, r] = sum_c input[t, c] * weight[r, c] + bias[r]`.
///
/// `input` has rows of the weight's columns, `output` is `f32` with as many rows of the weight's rows, `bias` is `f32`
/// `[rows]`. Sums are taken in `f32`; integer products within a group of 16 or 32 columns are exact. The result of a
/// row does not depend on the number of threads.
///
/// # Errors
/// `InvalidArgument` for weights of integers, for shapes or dtypes that do not fit, or when `output` overlaps an input.
pub fn matmul(
    encoder: &mut CommandEncoder,
    input: MatmulInput<'_>,
    weight: &Weight,
    output: &MlxBuffer,
    bias: Option<&MlxBuffer>,
) -> Result<()> {
    let check = Check::new("matmul");
    let prepared = Prepared::new(check, input, &[("weight", weight)], output)?;
    if let Some(bias) = bias {
        check.dtype("bias", bias, &[DType::F32])?;
        check.shape("bias", bias, &[weight.rows()])?;
    }
    if let Some(layout) = mlx::layout_of(weight) {
        return mlx::matmul(encoder, &prepared, (weight, layout), output, bias);
    }
    let mut bindings = vec![read(prepared.input), read(weight.data()), write(output)];
    bindings.extend(bias.map(read));
    if encoder.device().runs_gpu_kernels() {
        return gpu::matmul(encoder, &prepared, weight, output, bias);
    }
    prepared.dispatch(encoder, &bindings, cpu::Epilogue::Bias)
}

/// A product whose operands have been checked and whose method has been chosen.
pub(in crate::ops) struct Prepared<'a> {
    check: Check,
    /// The form of the input that the method reads.
    pub(in crate::ops) input: &'a MlxBuffer,
    /// The input in `f32`.
    values: &'a MlxBuffer,
    problem: Problem,
    plan: Plan,
}

impl<'a> Prepared<'a> {
    /// `weights` are one matrix, or two of the same shape.
    pub(in crate::ops) fn new(
        check: Check,
        input: MatmulInput<'a>,
        weights: &[(&str, &Weight)],
        output: &MlxBuffer,
    ) -> Result<Self> {
        let (first_name, first) = weights[0];
        check.dtype("input", input.values, &[DType::F32])?;
        check.dtype("output", output, &[DType::F32])?;
        let (tokens, columns) = check.rows("input", input.values)?;
        check.that(
            columns == first.columns(),
            format_args!(
                "input {:?} x {first_name} [{}, {}]: inner dimensions differ ({columns} vs {})",
                input.values.shape(),
                first.rows(),
                first.columns(),
                first.columns()
            ),
        )?;
        for (name, weight) in weights {
            if mlx::layout_of(weight).is_none() {
                check_encoding(check, name, weight)?;
            }
            check.that(
                can_multiply(weight.encoding()),
                format_args!("{name} is {}, for which there is no kernel", weight.encoding()),
            )?;
            check.that(
                (weight.rows(), weight.columns()) == (first.rows(), first.columns()),
                format_args!(
                    "{name} is [{}, {}], {first_name} is [{}, {}]",
                    weight.rows(),
                    weight.columns(),
                    first.rows(),
                    first.columns()
                ),
            )?;
        }
        let given = check.rows("output", output)?;
        check.that(
            given == (tokens, first.rows()),
            format_args!("output is {:?}, needed [{tokens}, {}]", output.shape(), first.rows()),
        )?;
        let encoding = |index: usize| weights[index.min(weights.len() - 1)].1.encoding();
        let quantizes = |index| reads_8_bit_activations(encoding(index));
        let mut terms = 1;
        let quantized = match input.quantized {
            Some(quantized) if quantizes(0) && quantizes(1) => {
                if quantized.shape().first() == Some(&(2 * tokens)) {
                    terms = 2;
                }
                check_quantized(check, "quantized input", quantized, terms * tokens, columns)?;
                Some(quantized)
            }
            _ => None,
        };
        let problem = Problem {
            tokens,
            rows: first.rows(),
            columns,
            encodings: [encoding(0), encoding(1)],
            matrices: weights.len(),
            quantized_input: quantized.is_some(),
            terms,
        };
        let plan = select::plan(&problem);
        Ok(Self { check, input: quantized.unwrap_or(input.values), values: input.values, problem, plan })
    }

    /// True when the method reads the 8-bit form of the input.
    pub(in crate::ops) fn reads_quantized(&self) -> bool {
        self.problem.quantized_input
    }

    pub(in crate::ops) fn dispatch(
        &self,
        encoder: &mut CommandEncoder,
        bindings: &[Binding<'_>],
        epilogue: cpu::Epilogue,
    ) -> Result<()> {
        let Self { check, problem, plan, .. } = self;
        let level = encoder.device().cpu_level();
        let [encoding, second] = problem.encodings;
        let block = cpu::Block {
            tokens: check.u32("input rows", problem.tokens)?,
            rows: check.u32("weight rows", problem.rows)?,
            columns: check.u32("columns", problem.columns)?,
            encodings: [encoding.ggml_id().unwrap_or(u32::MAX), second.ggml_id().unwrap_or(u32::MAX)],
            quantized_input: u32::from(problem.quantized_input),
            terms: check.u32("terms", problem.terms)?,
            level: level as u32,
            tiled: u32::from(plan.tiled),
            token_block: check.u32("token block", plan.token_block)?,
            epilogue: epilogue.number(),
        };
        let key = KernelKey { operation: check.operation, element: encoding, variant: level.name() };
        let cpu = lanes::kernel::<cpu::Matmul>(level);
        let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: "", cpu })?;
        let groups = [check.u32("rows", problem.rows)?, check.u32("tokens", problem.tokens)?, 1];
        let launch =
            Launch { groups, threads_per_group: 256, items: plan.items, items_per_chunk: plan.items_per_chunk };
        encoder.dispatch(&kernel, bindings, &block, launch)
    }
}

/// The number of the weight's encoding, when it is one that kernels read.
pub(in crate::ops) fn check_encoding(check: Check, name: &str, weight: &Weight) -> Result<u32> {
    let supported = match weight.encoding() {
        TensorType::Dense(dtype) => matches!(dtype, DType::F32 | DType::F16 | DType::BF16),
        TensorType::Quantized(_) => true,
        TensorType::Mlx(_) => false,
    };
    let number = weight.encoding().ggml_id().filter(|_| supported);
    number.ok_or_else(|| {
        check.error(format_args!("{name} is {}, needed f32, f16, bf16 or a quantised type", weight.encoding()))
    })
}

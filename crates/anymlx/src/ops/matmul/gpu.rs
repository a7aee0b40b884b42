//! How products run on a GPU: which kernel of the text takes how many tokens.

use anymlx_formats::quant::TensorType;
use bytemuck::{Pod, Zeroable};

use super::{MatmulInput, Prepared, select::Problem};
use crate::{
    Binding, CommandEncoder, Kernel, KernelKey, Launch, MlxBuffer, NativeTexts, Result, Weight,
    ops::{
        check::Check, gated_activation::Activation, gated_matmul::composite, launch,
        quantize_activations::QuantizedLayout,
    },
    read, write,
};

pub(in crate::ops) const MATMUL: &str = gpu_text!(
    "../gpu/codes.h",
    "../gpu/quant.h",
    "../gpu/quant_codebook.h",
    "../gpu/dense.h",
    "../gpu/matvec.h",
    "matmul.gpu.cpp"
);
/// What takes tiles on Apple's matrix units.
pub(in crate::ops) const MATMUL_SIMDGROUP: &str = gpu_text!(
    "../gpu/codes.h",
    "../gpu/quant.h",
    "../gpu/quant_codebook.h",
    "../gpu/dense.h",
    "../gpu/matvec.h",
    "matmul_simdgroup.metal"
);
pub(in crate::ops) const GATED_MATMUL: &str = gpu_text!(
    "../gpu/codes.h",
    "../gpu/quant.h",
    "../gpu/quant_codebook.h",
    "../gpu/dense.h",
    "../gpu/activation.h",
    "../gpu/matvec.h",
    "../gated_matmul/gated_matmul.gpu.cpp"
);

/// Simdgroups of a threadgroup of the kernels for few tokens.
const SIMDGROUPS: u32 = 4;
/// Rows and tokens of a tile.
const TILE: u32 = 64;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    tokens: u32,
    rows: u32,
    columns: u32,
    /// Columns of `f32` activations and of dense weights that may be taken four at a time.
    vector_columns: u32,
    /// Of 32 in the 8-bit form, the zero ones at the end included; 0 without that form.
    groups: u32,
    activation_bytes: u32,
    /// Rows of 8-bit activations for each token.
    terms: u32,
    /// Of a plain product whether there is a bias, of a gated one the activation.
    epilogue: u32,
}

/// A kernel of the text and what one of its threadgroups takes: rows of weights, and of activations (of tokens, for
/// tiles).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    variant: &'static str,
    rows: u32,
    inputs: u32,
    threads: u32,
}

/// Kernels whose simdgroups take `rows` rows of weights and `inputs` of activations.
const fn simdgroups(variant: &'static str, rows: u32, inputs: u32) -> Choice {
    Choice { variant, rows: rows * SIMDGROUPS, inputs, threads: 32 * SIMDGROUPS }
}

/// Rows of activations, of which a token may have two.
fn inputs(problem: &Problem) -> usize {
    problem.tokens.saturating_mul(problem.terms)
}

/// The kernel for a plain product.
fn choose(problem: &Problem, native: NativeTexts) -> Choice {
    let tile = |variant| Choice { variant, rows: TILE, inputs: TILE, threads: 256 };
    let matrices = |variant| Choice { variant, rows: TILE, inputs: TILE / 2, threads: 128 };
    match (problem.quantized_input, inputs(problem)) {
        (true, ..=1) => simdgroups("i8x1", 1, 1),
        (true, 2) => simdgroups("i8x2", 2, 2),
        (true, 3..=4) => simdgroups("i8x4", 2, 4),
        (true, 5..=8) => simdgroups("i8x8", 2, 8),
        (true, _) if native == NativeTexts::Metal => matrices("i8simdgroup"),
        (true, _) => tile("i8tile"),
        (false, ..=1) => simdgroups("f32x1", 1, 1),
        (false, 2..=8) => simdgroups("f32x4", 2, 4),
        (false, _) if native == NativeTexts::Metal => matrices("f32simdgroup"),
        (false, _) => tile("f32tile"),
    }
}

/// The kernel for a gated product; `None` where two plain products are the better way.
fn choose_gated(problem: &Problem) -> Option<Choice> {
    if problem.encodings[0] != problem.encodings[1] {
        return None;
    }
    match (problem.quantized_input, inputs(problem)) {
        (true, ..=1) => Some(simdgroups("i8x1", 1, 1)),
        (true, 2) => Some(simdgroups("i8x2", 1, 2)),
        (true, 3..=4) => Some(simdgroups("i8x4", 1, 4)),
        (true, 5..=8) => Some(simdgroups("i8x8", 1, 8)),
        (false, ..=1) => Some(simdgroups("f32x1", 1, 1)),
        (false, 2..=8) => Some(simdgroups("f32x4", 1, 4)),
        _ => None,
    }
}

/// A product as kernels take it.
struct Dispatch {
    block: Block,
    launch: Launch,
    kernel: Kernel,
}

impl Dispatch {
    /// `weights` are read by the kernel, beside `prepared.input`.
    fn new(
        encoder: &CommandEncoder,
        prepared: &Prepared<'_>,
        choice: Choice,
        weights: &[&Weight],
        epilogue: u32,
    ) -> Result<Self> {
        let Prepared { check, input, problem, .. } = prepared;
        // A format's blocks are read up to 16 bytes at a time.
        for weight in weights {
            let at = weight.data().byte_offset();
            let aligned = matches!(problem.encodings[0], TensorType::Dense(_)) || at.is_multiple_of(16);
            check.that(aligned, format_args!("a matrix begins at byte {at}, a GPU needs a multiple of 16"))?;
        }
        let layout = if problem.quantized_input { QuantizedLayout::new(problem.columns) } else { None };
        let mut buffers: Vec<&MlxBuffer> = weights.iter().map(|weight| weight.data()).collect();
        buffers.push(*input);
        let block = Block {
            tokens: check.u32("input rows", problem.tokens)?,
            rows: check.u32("weight rows", problem.rows)?,
            columns: check.u32("columns", problem.columns)?,
            vector_columns: launch::vector_columns(problem.columns, &buffers),
            groups: check.u32("groups", layout.map_or(0, |layout| layout.groups))?,
            activation_bytes: check.u32("activation bytes", layout.map_or(0, |layout| layout.row_bytes))?,
            terms: check.u32("terms", problem.terms)?,
            epilogue,
        };
        let inputs = if choice.rows == TILE { block.tokens } else { check.u32("rows of input", inputs(problem))? };
        let launch = Launch {
            groups: [block.rows.div_ceil(choice.rows), inputs.div_ceil(choice.inputs), 1],
            threads_per_group: choice.threads,
            items: problem.rows,
            items_per_chunk: 1,
        };
        let text = match weights.len() {
            2 => GATED_MATMUL,
            _ if choice.variant.ends_with("simdgroup") => MATMUL_SIMDGROUP,
            _ => MATMUL,
        };
        let operation = if weights.len() == 2 { "gated_matmul" } else { "matmul" };
        let kernel = kernel(encoder, *check, operation, weights[0].encoding(), choice.variant, text)?;
        Ok(Self { block, launch, kernel })
    }

    fn record(&self, encoder: &mut CommandEncoder, bindings: &[Binding<'_>]) -> Result<()> {
        encoder.dispatch(&self.kernel, bindings, &self.block, self.launch)
    }
}

fn kernel(
    encoder: &CommandEncoder,
    check: Check,
    operation: &'static str,
    element: TensorType,
    variant: &'static str,
    gpu: &'static str,
) -> Result<Kernel> {
    let key = KernelKey { operation, element, variant };
    launch::gpu_kernel(encoder, check, key, gpu)
}

/// Records a plain product.
pub(super) fn matmul(
    encoder: &mut CommandEncoder,
    prepared: &Prepared<'_>,
    weight: &Weight,
    output: &MlxBuffer,
    bias: Option<&MlxBuffer>,
) -> Result<()> {
    let choice = choose(&prepared.problem, encoder.device().native_texts());
    let dispatch = Dispatch::new(encoder, prepared, choice, &[weight], u32::from(bias.is_some()))?;
    // Without a bias the kernel reads nothing from its place.
    let bias = bias.unwrap_or(prepared.input);
    dispatch.record(encoder, &[read(prepared.input), read(weight.data()), write(output), read(bias)])
}

/// Records a gated product: one kernel for few tokens, else the plain products and the activation.
pub(in crate::ops) fn gated_matmul(
    encoder: &mut CommandEncoder,
    prepared: &Prepared<'_>,
    input: MatmulInput<'_>,
    [gate, up]: [&Weight; 2],
    output: &MlxBuffer,
    activation: Activation,
) -> Result<()> {
    if let Some(choice) = choose_gated(&prepared.problem) {
        let dispatch = Dispatch::new(encoder, prepared, choice, &[gate, up], activation as u32)?;
        let bindings = [read(prepared.input), read(gate.data()), read(up.data()), write(output)];
        return dispatch.record(encoder, &bindings);
    }
    composite(encoder, input, [gate, up], output, activation)
}

#[cfg(test)]
mod tests {
    use anymlx_formats::quant::QuantType;

    use super::*;

    fn problem(tokens: usize, quantized_input: bool, terms: usize, encodings: [QuantType; 2]) -> Problem {
        let encodings = encodings.map(TensorType::Quantized);
        Problem { tokens, rows: 100, columns: 256, encodings, matrices: 2, quantized_input, terms }
    }

    #[test]
    fn few_tokens_take_one_pass_over_the_weights() {
        for (quantized, terms) in [(true, 1), (true, 2), (false, 1)] {
            for tokens in 1..=600 {
                let problem = problem(tokens, quantized, terms, [QuantType::Q4_K; 2]);
                let (choice, inputs) = (choose(&problem, NativeTexts::None), tokens * terms);
                assert!(choice.variant.starts_with(if quantized { "i8" } else { "f32" }));
                assert_eq!(choice.variant.ends_with("tile"), inputs > 8);
                assert_eq!(choice.rows == TILE, inputs > 8);
                if quantized && inputs <= 8 {
                    assert!(choice.inputs as usize >= inputs, "{tokens}");
                }
                assert_eq!(choose_gated(&problem).is_some(), inputs <= 8);
                let metal = choose(&problem, NativeTexts::Metal);
                assert_eq!(metal.variant.ends_with("simdgroup"), inputs > 8);
                assert!(metal == choice || metal.rows == TILE, "{metal:?}");
            }
        }
    }

    #[test]
    fn different_encodings_are_not_gated_together() {
        assert_eq!(choose_gated(&problem(1, true, 1, [QuantType::Q4_K, QuantType::Q6_K])), None);
    }
}

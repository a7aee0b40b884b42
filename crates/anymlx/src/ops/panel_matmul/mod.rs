//! Products of many tokens on the tensor cores of NVIDIA's Hopper GPUs: weights are unpacked into bf16
//! [`panels`](super::panels) once for all tokens, inputs are rounded to bf16, sums are `f32`.
//!
//! Only the fused operations come here, and only where the caller gives a place for the 8-bit form of the input:
//! that allows for more rounding than bf16 does.

mod plan;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

use super::{
    Activation,
    check::Check,
    gpu, launch,
    matmul::{MatmulInput, Prepared, reads_8_bit_activations},
    panels::{self, PanelNorm, PanelPlace, PanelShape},
    project::{LayerInput, Projection},
};
use crate::{
    Binding, CommandEncoder, DType, KernelKey, Launch, MlxBuffer, MlxDevice, Result, TensorType, Weight, read,
    read_write, write,
};
use plan::{Plan, Problem};

macro_rules! text {
    ($kind:literal, $rows:literal) => {
        concat!(
            "#define RESULT ",
            $kind,
            "\n#define ROWS ",
            $rows,
            "\n",
            gpu_text!("../gpu/activation.h", "../gpu/tensor_cores.h", "panel_matmul.cu")
        )
    };
}

/// What becomes of the sums, and the kernel's text and variant for tiles of 128 and of 256 rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) texts: [(&'static str, &'static str); 2],
}

const STORE: Kind = Kind { texts: [("store1_n128", text!("store1", "128")), ("store1_n256", text!("store1", "256"))] };
const STORE_THREE: Kind =
    Kind { texts: [("store3_n128", text!("store3", "128")), ("store3_n256", text!("store3", "256"))] };
const ADD: Kind = Kind { texts: [("add_n128", text!("add", "128")), ("add_n256", text!("add", "256"))] };
const GATE: Kind = Kind { texts: [("gate_n128", text!("gate", "128")), ("gate_n256", text!("gate", "256"))] };
const PANELS: Kind = Kind { texts: [("panels_n128", text!("panels", "128")), ("panels_n256", text!("panels", "256"))] };

/// All of them, for the list of texts.
pub(super) const KINDS: [Kind; 5] = [STORE, STORE_THREE, ADD, GATE, PANELS];
/// What every text reads.
pub(super) const ELEMENT: TensorType = TensorType::Dense(DType::BF16);
/// The architecture whose instructions the texts use.
pub(super) const ARCHITECTURE: u32 = 90;
/// Threads of a threadgroup: one warpgroup that copies, two that multiply.
const THREADS: u32 = 384;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    tokens: u32,
    columns: u32,
    input_stride: u32,
    weight_stride: u32,
    output_stride: u32,
    /// Rows where the second and third matrix begin.
    starts: [u32; 2],
    rows: [u32; 3],
    has_bias: [u32; 3],
    activation: u32,
    /// 1 where two neighbours of an output may be written at once.
    vectors: u32,
}

/// True for the encodings of weights whose products round activations in the fused operations of `device`, where these are
/// given a place for the 8-bit form: to 8 bits where [`reads_8_bit_activations`] says so, and from nine tokens on to `bf16`
/// on the tensor cores of NVIDIA's Hopper GPUs, as the weights are. Weights of `f32` alone stay as they are.
pub fn rounds_activations(device: &MlxDevice, encoding: TensorType) -> bool {
    let is_single = encoding == TensorType::Dense(DType::F32);
    let has_tensor_cores = device.native_texts().is_exactly_cuda(ARCHITECTURE);
    reads_8_bit_activations(encoding) || (has_tensor_cores && !is_single && gpu::has_format(encoding))
}

/// A matrix in panels.
struct Panelled {
    panels: MlxBuffer,
    shape: PanelShape,
}

/// Products that share an input, ready to be recorded.
pub(super) struct Products<'a> {
    check: Check,
    input: LayerInput<'a>,
    /// The rows that are multiplied or normed.
    values: MatmulInput<'a>,
    tokens: usize,
    columns: usize,
    multiprocessors: usize,
}

impl<'a> Products<'a> {
    /// `None` where the product is not for the tensor cores. `weights` are all that are multiplied at once.
    pub(super) fn new(
        encoder: &CommandEncoder,
        operation: &'static str,
        input: LayerInput<'a>,
        weights: &[&Weight],
    ) -> Option<Self> {
        let values = input.rows();
        let (&columns, rows) = values.values.shape().split_last()?;
        let device = encoder.device();
        if !device.native_texts().is_exactly_cuda(ARCHITECTURE) || values.quantized.is_none() {
            return None;
        }
        let tokens = rows.iter().product();
        let products = Self {
            check: Check::new(operation),
            input,
            values,
            tokens,
            columns,
            multiprocessors: device.compute_units(),
        };
        let known = weights.iter().all(|weight| gpu::has_format(weight.encoding()) && weight.columns() == columns);
        (known && products.plan(shape_of(weights)).is_some()).then_some(products)
    }

    fn plan(&self, weights: PanelShape) -> Option<Plan> {
        plan::plan(Problem { tokens: self.tokens, weights, multiprocessors: self.multiprocessors })
    }

    fn check_product(&self, weight: &Weight, output: &MlxBuffer, bias: Option<&MlxBuffer>) -> Result<()> {
        Prepared::new(self.check, self.values, &[("weight", weight)], output)?;
        if let Some(bias) = bias {
            self.check.dtype("bias", bias, &[DType::F32])?;
            self.check.shape("bias", bias, &[weight.rows()])?;
        }
        Ok(())
    }

    /// The input, normed where it says so, in panels.
    fn input_panels(&self, encoder: &mut CommandEncoder) -> Result<Panelled> {
        let shape = PanelShape::of(self.tokens, self.columns);
        let panels = scratch(encoder, self.check, "input panels", shape)?;
        let (rows, norm) = match self.input {
            LayerInput::Rows(input) => (input.values, None),
            LayerInput::Normed { rows, weight, params, normed } => {
                self.check.dtype("norm weight", weight, &[DType::F32])?;
                self.check.shape("norm weight", weight, &[self.columns])?;
                self.check.dtype("rows", rows, &[DType::F32])?;
                self.check.shape("rows", rows, normed.values.shape())?;
                (rows, Some(PanelNorm { weight, params }))
            }
        };
        panels::write_rows(encoder, self.check, rows, norm, &panels, shape)?;
        Ok(Panelled { panels, shape })
    }

    fn block(&self, input: PanelShape, weights: PanelShape, outputs: &[&MlxBuffer]) -> Result<Block> {
        let check = self.check;
        let pairs = |buffer: &&MlxBuffer| {
            buffer.byte_offset().is_multiple_of(8) && buffer.shape().last().is_some_and(|rows| rows.is_multiple_of(2))
        };
        let mut rows = [0; 3];
        for (rows, output) in rows.iter_mut().zip(outputs) {
            *rows = check.u32("rows", output.shape().last().copied().unwrap_or(0))?;
        }
        Ok(Block {
            tokens: check.u32("tokens", self.tokens)?,
            columns: check.u32("columns", input.columns)?,
            input_stride: check.u32("panel rows", input.stride)?,
            weight_stride: check.u32("panel rows", weights.stride)?,
            output_stride: 0,
            starts: [u32::MAX; 2],
            rows,
            has_bias: [0; 3],
            activation: 0,
            vectors: u32::from(outputs.iter().all(pairs)),
        })
    }

    fn dispatch(
        &self,
        encoder: &mut CommandEncoder,
        kind: Kind,
        operands: [&Panelled; 2],
        others: &[Binding<'_>],
        block: Block,
    ) -> Result<()> {
        let [input, weights] = operands;
        let unplanned = || self.check.error("the product is not for the tensor cores");
        let plan = self.plan(weights.shape).ok_or_else(unplanned)?;
        let (variant, text) = kind.texts[usize::from(plan.tile_rows == 256)];
        let key = KernelKey { operation: "panel_matmul", element: ELEMENT, variant };
        let kernel = launch::gpu_kernel(encoder, self.check, key, text)?;
        let mut bindings = vec![read(&input.panels), read(&weights.panels)];
        bindings.extend_from_slice(others);
        let groups = [self.check.u32("threadgroups", plan.groups)?, 1, 1];
        let launch = Launch { groups, threads_per_group: THREADS, ..Launch::default() };
        encoder.dispatch(&kernel, &bindings, &block, launch)
    }

    /// `output_i = input weight_i^T + bias_i`.
    pub(super) fn project(&self, encoder: &mut CommandEncoder, projections: &[Projection<'_>]) -> Result<()> {
        for projection in projections {
            self.check_product(projection.weight, projection.output, projection.bias)?;
        }
        let input = self.input_panels(encoder)?;
        match projections {
            [a, b, c] => self.store_three(encoder, &input, [a, b, c]),
            _ => projections.iter().try_for_each(|projection| self.store(encoder, STORE, &input, projection)),
        }
    }

    fn store_three(
        &self,
        encoder: &mut CommandEncoder,
        input: &Panelled,
        projections: [&Projection<'_>; 3],
    ) -> Result<()> {
        let weights = projections.map(|projection| projection.weight);
        let outputs = projections.map(|projection| projection.output);
        let (panelled, starts) = stacked(encoder, self.check, &weights)?;
        let mut block = self.block(input.shape, panelled.shape, &outputs)?;
        block.starts = [self.check.u32("rows", starts[1])?, self.check.u32("rows", starts[2])?];
        block.has_bias = projections.map(|projection| u32::from(projection.bias.is_some()));
        // A kernel reads nothing from the place of a bias that is not there.
        let biases = projections.map(|projection| read(projection.bias.unwrap_or(&input.panels)));
        let others: Vec<Binding<'_>> = biases.into_iter().chain(outputs.map(write)).collect();
        self.dispatch(encoder, STORE_THREE, [input, &panelled], &others, block)
    }

    fn store(
        &self,
        encoder: &mut CommandEncoder,
        kind: Kind,
        input: &Panelled,
        projection: &Projection<'_>,
    ) -> Result<()> {
        let Projection { weight, bias, output } = *projection;
        let (weights, _) = stacked(encoder, self.check, &[weight])?;
        let mut block = self.block(input.shape, weights.shape, &[output])?;
        block.has_bias[0] = u32::from(bias.is_some());
        let output = if kind == ADD { read_write(output) } else { write(output) };
        let others = [read(bias.unwrap_or(&input.panels)), output];
        self.dispatch(encoder, kind, [input, &weights], &others, block)
    }

    /// `residual += input weight^T + bias`.
    pub(super) fn add(
        &self,
        encoder: &mut CommandEncoder,
        projection: Projection<'_>,
        residual: &MlxBuffer,
    ) -> Result<()> {
        self.check_sum(projection, residual)?;
        let input = self.input_panels(encoder)?;
        self.store(encoder, ADD, &input, &Projection { output: residual, ..projection })
    }

    fn check_sum(&self, projection: Projection<'_>, residual: &MlxBuffer) -> Result<()> {
        self.check_product(projection.weight, projection.output, projection.bias)?;
        self.check.dtype("residual", residual, &[DType::F32])?;
        self.check.shape("residual", residual, projection.output.shape())
    }

    /// `output = activation(input gate^T) * (input up^T)`.
    pub(super) fn gate(
        &self,
        encoder: &mut CommandEncoder,
        matrices: [&Weight; 2],
        output: &MlxBuffer,
        activation: Activation,
    ) -> Result<()> {
        self.check_gate(matrices, output)?;
        let input = self.input_panels(encoder)?;
        let weights = interleaved(encoder, self.check, matrices)?;
        let mut block = self.block(input.shape, weights.shape, &[output])?;
        block.activation = activation as u32;
        self.dispatch(encoder, GATE, [&input, &weights], &[write(output)], block)
    }

    fn check_gate(&self, [gate, up]: [&Weight; 2], output: &MlxBuffer) -> Result<()> {
        Prepared::new(self.check, self.values, &[("gate", gate), ("up", up)], output).map(|_| ())
    }

    /// `residual += (activation(input gate^T) * (input up^T)) weight^T + bias`, whose gated product is
    /// rounded to bf16 and shaped like `gated`.
    pub(super) fn feed_forward(
        &self,
        encoder: &mut CommandEncoder,
        matrices: [&Weight; 2],
        activation: Activation,
        down: &Products<'_>,
        projection: Projection<'_>,
        residual: Option<&MlxBuffer>,
    ) -> Result<()> {
        self.check_gate(matrices, down.values.values)?;
        match residual {
            Some(residual) => down.check_sum(projection, residual)?,
            None => down.check_product(projection.weight, projection.output, projection.bias)?,
        }
        let input = self.input_panels(encoder)?;
        let weights = interleaved(encoder, self.check, matrices)?;
        // The kernel writes whole groups of columns.
        let shape = PanelShape::of(self.tokens, down.columns);
        let gated = Panelled { panels: scratch(encoder, self.check, "gated panels", shape)?, shape };
        if !down.columns.is_multiple_of(panels::WIDTH) {
            encoder.fill_bytes(&gated.panels, 0)?;
        }
        let mut block = self.block(input.shape, weights.shape, &[down.values.values])?;
        block.activation = activation as u32;
        block.output_stride = self.check.u32("panel rows", shape.stride)?;
        self.dispatch(encoder, PANELS, [&input, &weights], &[write(&gated.panels)], block)?;
        match residual {
            Some(residual) => down.store(encoder, ADD, &gated, &Projection { output: residual, ..projection }),
            None => down.store(encoder, STORE, &gated, &projection),
        }
    }
}

/// The panels of all weights together.
fn shape_of(weights: &[&Weight]) -> PanelShape {
    let rows = weights.iter().map(|weight| weight.rows().next_multiple_of(panels::GROUP));
    let columns = weights.first().map_or(0, |weight| weight.columns());
    PanelShape::of(rows.fold(0, usize::saturating_add), columns)
}

fn scratch(encoder: &CommandEncoder, check: Check, purpose: &'static str, shape: PanelShape) -> Result<MlxBuffer> {
    let bytes = shape.byte_len().ok_or_else(|| check.error(format_args!("{shape:?} is too large")))?;
    encoder.device().shared_scratch(purpose, bytes)
}

/// Weights whose rows stand one after the other, and where each begins.
fn stacked(encoder: &mut CommandEncoder, check: Check, weights: &[&Weight]) -> Result<(Panelled, Vec<usize>)> {
    let shape = shape_of(weights);
    let panels = scratch(encoder, check, "weight panels", shape)?;
    let mut starts = Vec::with_capacity(weights.len());
    let mut first = 0;
    for weight in weights {
        starts.push(first);
        panels::write_weight(encoder, check, weight, &panels, shape, PanelPlace { first, interleaved: 1 })?;
        first += weight.rows().next_multiple_of(panels::GROUP);
    }
    Ok((Panelled { panels, shape }, starts))
}

/// Two weights whose groups of rows take turns.
fn interleaved(encoder: &mut CommandEncoder, check: Check, weights: [&Weight; 2]) -> Result<Panelled> {
    let shape = shape_of(&weights);
    let panels = scratch(encoder, check, "weight panels", shape)?;
    for (index, weight) in weights.into_iter().enumerate() {
        let place = PanelPlace { first: panels::GROUP * index, interleaved: 2 };
        panels::write_weight(encoder, check, weight, &panels, shape, place)?;
    }
    Ok(Panelled { panels, shape })
}

//! Rows of tables in MLX's layout.

use anymlx_formats::mlx::{self, MlxType, PackedMatrix};
use bytemuck::{Pod, Zeroable};

use crate::{
    CommandEncoder, CpuKernel, Invocation, KernelFault, KernelKey, KernelResult, Launch, MlxBuffer, Result, TensorType,
    Weight,
    ops::{
        check::Check,
        launch::{self, LIGHT_CHUNK},
        matmul::mlx::{LayoutNumbers, buffers, layout_of},
    },
    read,
    registry::BuiltIn,
    write,
};

pub(in crate::ops) const GPU: &str = gpu_text!("../gpu/codes.h", "../gpu/mlx.h", "mlx_gather_rows.gpu.cpp");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block {
    table_rows: u32,
    columns: u32,
    all_rows: u32,
    factor: f32,
    layout: LayoutNumbers,
}

/// Rows `ids` of `table`, whose layout is `layout`, times `factor`.
pub(super) fn gather_rows(
    encoder: &mut CommandEncoder,
    (table, layout): (&Weight, MlxType),
    ids: &MlxBuffer,
    output: &MlxBuffer,
    factor: f32,
) -> Result<()> {
    dispatch(encoder, (table, layout), Some(ids), output, factor)
}

/// The whole matrix in `f32`, `[rows, columns]`.
pub(in crate::ops) fn all_rows(encoder: &mut CommandEncoder, table: &Weight, output: &MlxBuffer) -> Result<()> {
    match layout_of(table) {
        Some(layout) => dispatch(encoder, (table, layout), None, output, 1.0),
        None => Err(Check::new("gather_rows").error("the table is not in a layout of MLX")),
    }
}

fn dispatch(
    encoder: &mut CommandEncoder,
    (table, layout): (&Weight, MlxType),
    ids: Option<&MlxBuffer>,
    output: &MlxBuffer,
    factor: f32,
) -> Result<()> {
    let check = Check::new("gather_rows");
    let (rows, columns) = check.rows("output", output)?;
    let block = Block {
        table_rows: check.u32("table rows", table.rows())?,
        columns: check.u32("columns", columns)?,
        all_rows: u32::from(ids.is_none()),
        factor,
        layout: layout.into(),
    };
    let launch = Launch {
        threads_per_group: launch::threads_for(columns.div_ceil(8)),
        ..launch::rows(check, rows, columns, LIGHT_CHUNK / 4)?
    };
    let key = KernelKey { operation: "gather_rows", element: TensorType::Mlx(layout), variant: "" };
    let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: GPU, cpu: KERNEL })?;
    let [packed, scales, biases] = buffers(table);
    // Where all rows are wanted, the place of the ids is not read.
    let ids = ids.unwrap_or(packed);
    encoder.dispatch(&kernel, &[read(packed), read(scales), read(biases), read(ids), write(output)], &block, launch)
}

// SAFETY: item `i` writes elements `i * columns .. (i + 1) * columns` of binding 4 and nothing else.
const KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run) };

fn run(invocation: &Invocation<'_>) -> KernelResult {
    let block: Block = invocation.params();
    let layout = block.layout.layout()?;
    let columns = block.columns as usize;
    let groups = columns / layout.group_len();
    let (row_bytes, factor_bytes) = (groups * layout.group_bytes(), groups * layout.scales().size_of());
    let (packed, scales, biases) = (invocation.input::<u8>(0), invocation.input::<u8>(1), invocation.input::<u8>(2));
    let has_biases = layout.quantization().mode().has_biases();
    for item in invocation.items() {
        let id = if block.all_rows != 0 { item as u32 } else { invocation.input::<u32>(3)[item] };
        if id >= block.table_rows {
            return Err(KernelFault(format!("ids[{item}] is {id}, the table has {} rows", block.table_rows)));
        }
        let row = id as usize;
        let factors = row * factor_bytes..(row + 1) * factor_bytes;
        let matrix = PackedMatrix {
            quantization: layout.quantization(),
            columns,
            packed: &packed[row * row_bytes..(row + 1) * row_bytes],
            scales: &scales[factors.clone()],
            scale_type: layout.scales(),
            biases: has_biases.then(|| &biases[factors]),
        };
        // SAFETY: the elements of this item.
        let output = unsafe { invocation.output::<f32>(4, item * columns..(item + 1) * columns) };
        mlx::dequantize(&matrix, output)?;
        if block.factor != 1.0 {
            output.iter_mut().for_each(|value| *value *= block.factor);
        }
    }
    Ok(())
}

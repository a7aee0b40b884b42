//! Copies between element types.

mod cpu;
#[cfg(test)]
mod tests;

use anymlx_formats::quant::TensorType;

use super::{
    check::Check,
    launch::{self, LIGHT_CHUNK},
};
use crate::{CommandEncoder, DType, KernelKey, MlxBuffer, Result, read, registry::BuiltIn, write};

pub(super) const GPU: &str = gpu_text!("copy.gpu.cpp");

/// `to = from`, element by element, in the dtype of `to`: among `F32`, `F16` and `BF16`, or between
/// any two of the same dtype.
///
/// The shapes may differ, the element counts may not. Rounding is to nearest, ties to even; what is
/// too large for `F16` becomes infinite.
///
/// # Errors
/// `InvalidArgument` for other dtypes or counts, or when the two overlap.
pub fn copy(encoder: &mut CommandEncoder, from: &MlxBuffer, to: &MlxBuffer) -> Result<()> {
    const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
    let check = Check::new("copy");
    check.bytes("from", from)?;
    check.bytes("to", to)?;
    let count = from.element_count();
    check.that(
        count == to.element_count(),
        format_args!("from is {:?} and to is {:?}, needed as many elements", from.shape(), to.shape()),
    )?;
    if from.dtype() == to.dtype() {
        let (from, to) = (from.try_slice_view(0, count)?, to.try_slice_view(0, count)?);
        return encoder.copy_bytes(&from, &to);
    }
    check.dtype("from", from, &FLOATS)?;
    check.dtype("to", to, &FLOATS)?;
    let (cpu, variant) = cpu::cast(from.dtype(), to.dtype())
        .ok_or_else(|| check.error(format_args!("{} to {} has no kernel", from.dtype(), to.dtype())))?;
    let key = KernelKey { operation: "copy", element: TensorType::Dense(from.dtype()), variant };
    let kernel = encoder.device().kernels().built_in(&BuiltIn { key, gpu: GPU, cpu })?;
    let launch = launch::elements(check, count, LIGHT_CHUNK)?;
    encoder.dispatch(&kernel, &[read(from), write(to)], &check.u32("element count", count)?, launch)
}

//! One item is one element.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::{CpuKernel, DType, Invocation, KernelResult};

/// The kernel and its variant.
pub(super) fn cast(from: DType, to: DType) -> Option<(CpuKernel, &'static str)> {
    type Function = fn(&Invocation<'_>) -> KernelResult;
    let (function, variant): (Function, _) = match (from, to) {
        (DType::F32, DType::F16) => (f32_to_f16, "to_f16"),
        (DType::F32, DType::BF16) => (f32_to_bf16, "to_bf16"),
        (DType::F16, DType::F32) => (f16_to_f32, "to_f32"),
        (DType::F16, DType::BF16) => (f16_to_bf16, "to_bf16"),
        (DType::BF16, DType::F32) => (bf16_to_f32, "to_f32"),
        (DType::BF16, DType::F16) => (bf16_to_f16, "to_f16"),
        _ => return None,
    };
    // SAFETY: item `i` of each of these writes element `i` of binding 1.
    Some((unsafe { CpuKernel::partitioned(function) }, variant))
}

fn f32_to_f16(invocation: &Invocation<'_>) -> KernelResult {
    let items = invocation.items();
    // SAFETY: the elements of these items.
    let to = unsafe { invocation.output::<f16>(1, items.clone()) };
    to.convert_from_f32_slice(&invocation.input::<f32>(0)[items]);
    Ok(())
}

fn f32_to_bf16(invocation: &Invocation<'_>) -> KernelResult {
    let items = invocation.items();
    // SAFETY: the elements of these items.
    let to = unsafe { invocation.output::<bf16>(1, items.clone()) };
    to.convert_from_f32_slice(&invocation.input::<f32>(0)[items]);
    Ok(())
}

fn f16_to_f32(invocation: &Invocation<'_>) -> KernelResult {
    let items = invocation.items();
    // SAFETY: the elements of these items.
    let to = unsafe { invocation.output::<f32>(1, items.clone()) };
    invocation.input::<f16>(0)[items].convert_to_f32_slice(to);
    Ok(())
}

fn bf16_to_f32(invocation: &Invocation<'_>) -> KernelResult {
    let items = invocation.items();
    // SAFETY: the elements of these items.
    let to = unsafe { invocation.output::<f32>(1, items.clone()) };
    invocation.input::<bf16>(0)[items].convert_to_f32_slice(to);
    Ok(())
}

fn f16_to_bf16(invocation: &Invocation<'_>) -> KernelResult {
    let items = invocation.items();
    // SAFETY: the elements of these items.
    let to = unsafe { invocation.output::<bf16>(1, items.clone()) };
    for (to, from) in to.iter_mut().zip(&invocation.input::<f16>(0)[items]) {
        *to = bf16::from_f32(from.to_f32());
    }
    Ok(())
}

fn bf16_to_f16(invocation: &Invocation<'_>) -> KernelResult {
    let items = invocation.items();
    // SAFETY: the elements of these items.
    let to = unsafe { invocation.output::<f16>(1, items.clone()) };
    for (to, from) in to.iter_mut().zip(&invocation.input::<bf16>(0)[items]) {
        *to = f16::from_f32(from.to_f32());
    }
    Ok(())
}

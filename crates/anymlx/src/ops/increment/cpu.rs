//! One item is one value.

use crate::{CpuKernel, Invocation, KernelResult};

// SAFETY: item `i` reads and writes element `i` of binding 0.
pub(super) const KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(run) };

fn run(invocation: &Invocation<'_>) -> KernelResult {
    // SAFETY: the elements of this call's items.
    let values = unsafe { invocation.output::<u32>(0, invocation.items()) };
    values.iter_mut().for_each(|value| *value = value.wrapping_add(1));
    Ok(())
}

//! How attention runs on a GPU: the kernel for the head's size, and how many parts the keys are cut into.

use bytemuck::{Pod, Zeroable};

use super::{Block, simdgroup};
use crate::{
    Binding, CommandEncoder, DType, KernelKey, Launch, MlxBuffer, MlxBufferPool, Result, TensorType,
    ops::{check::Check, launch},
    read, write,
};

pub(in crate::ops) const GPU: &str = gpu_text!("../gpu/dense.h", "attention.gpu.cpp");
/// Threadgroups that are worth having: about two for each multiprocessor of a large GPU.
const ENOUGH_GROUPS: usize = 256;
/// Keys of a part that are worth a threadgroup of their own.
const KEYS_OF_PART: usize = 64;
/// More parts would take longer to join than they save.
const MAX_PARTS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GpuBlock {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
    window: u32,
    scale: f32,
    softcap: f32,
    slices: u32,
    parts: u32,
    vectors: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct JoinBlock {
    heads: u32,
    parts: u32,
    head_dim: u32,
    window: u32,
}

/// What is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct GpuProblem {
    pub(super) tokens: usize,
    /// Query heads of one key head.
    pub(super) group: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Keys that a token can see at most.
    pub(super) keys: usize,
}

/// What is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GpuPlan {
    variant: &'static str,
    threads: u32,
    /// Threadgroups that share the heads of a key head.
    slices: usize,
    /// Threadgroups that share the keys.
    parts: usize,
}

/// `None` for heads that no kernel takes.
fn plan(problem: GpuProblem) -> Option<GpuPlan> {
    let GpuProblem { tokens, group, kv_heads, head_dim, keys } = problem;
    let (variant, heads, threads) = match (head_dim, group) {
        (..=64, 1) => ("d64_g1", 1, 256),
        (..=64, _) => ("d64_g4", 4, 256),
        (..=128, 1) => ("d128_g1", 1, 256),
        (..=128, _) => ("d128_g4", 4, 256),
        (..=256, 1) => ("d256_g1", 1, 256),
        (..=256, _) => ("d256_g4", 4, 128),
        (..=512, _) => ("d512_g1", 1, 128),
        _ => return None,
    };
    let slices = group.div_ceil(heads);
    let groups = tokens.saturating_mul(kv_heads).saturating_mul(slices);
    let parts = (ENOUGH_GROUPS / groups.max(1)).clamp(1, MAX_PARTS).min(keys.div_ceil(KEYS_OF_PART)).max(1);
    Some(GpuPlan { variant, threads, slices, parts })
}

/// Records attention; the buffers are queries, keys, values, positions and output.
pub(super) fn attention(
    encoder: &mut CommandEncoder,
    check: Check,
    block: &Block,
    tokens: usize,
    [queries, keys, values, positions, output]: [&MlxBuffer; 5],
) -> Result<()> {
    let (heads, kv_heads) = (block.heads as usize, block.kv_heads as usize);
    let (head_dim, capacity) = (block.head_dim as usize, block.capacity as usize);
    let problem =
        GpuProblem { tokens, group: heads / kv_heads, kv_heads, head_dim, keys: capacity.min(block.window as usize) };
    if let Some(plan) = simdgroup::plan(&problem, encoder.device().native_texts()) {
        return simdgroup::attention(encoder, check, block, tokens, plan, [queries, keys, values, positions, output]);
    }
    let plan = plan(problem);
    let plan =
        plan.ok_or_else(|| check.error(format_args!("heads of {head_dim}, at most 512 are possible on a GPU")))?;
    let gpu_block = GpuBlock {
        heads: block.heads,
        kv_heads: block.kv_heads,
        head_dim: block.head_dim,
        capacity: block.capacity,
        window: block.window,
        scale: block.scale,
        softcap: block.softcap,
        slices: check.u32("slices", plan.slices)?,
        parts: check.u32("parts", plan.parts)?,
        vectors: u32::from(launch::vector_columns(head_dim, &[queries, keys, values]) > 0),
    };
    let kernel = |encoder: &CommandEncoder, operation, element: DType, variant| {
        let key = KernelKey { operation, element: TensorType::Dense(element), variant };
        launch::gpu_kernel(encoder, check, key, GPU)
    };
    let attention = kernel(encoder, "attention", keys.dtype(), plan.variant)?;
    let launch = Launch {
        groups: [
            gpu_block.parts,
            check.u32("slices", plan.slices.saturating_mul(kv_heads))?,
            check.u32("tokens", tokens)?,
        ],
        threads_per_group: plan.threads,
        items: 1,
        items_per_chunk: 1,
    };
    let inputs: [Binding<'_>; 4] = [queries, keys, values, positions].map(read);
    let [q, k, v, p] = inputs;
    if plan.parts == 1 {
        return encoder.dispatch(&attention, &[q, k, v, p, write(output)], &gpu_block, launch);
    }
    // The pool is only where the encoder takes its scratch from.
    let shape = [tokens, heads, plan.parts, head_dim.saturating_add(2)];
    let partials = encoder.scratch(&mut MlxBufferPool::new(), DType::F32, &shape)?;
    encoder.dispatch(&attention, &[q, k, v, p, write(&partials)], &gpu_block, launch)?;
    let join = kernel(encoder, "attention_join", keys.dtype(), "")?;
    let launch = Launch {
        groups: [block.heads, check.u32("tokens", tokens)?, 1],
        threads_per_group: launch::threads_for(head_dim),
        items: 1,
        items_per_chunk: 1,
    };
    let block =
        JoinBlock { heads: block.heads, parts: gpu_block.parts, head_dim: block.head_dim, window: block.window };
    encoder.dispatch(&join, &[read(&partials), p, write(output)], &block, launch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(tokens: usize, heads: usize, kv_heads: usize, head_dim: usize, keys: usize) -> GpuPlan {
        plan(GpuProblem { tokens, group: heads / kv_heads, kv_heads, head_dim, keys }).unwrap()
    }

    #[test]
    fn one_token_fills_the_device() {
        assert_eq!(plan_of(1, 32, 8, 128, 8192), GpuPlan { variant: "d128_g4", threads: 256, slices: 1, parts: 32 });
        assert_eq!(plan_of(1, 4, 1, 256, 512), GpuPlan { variant: "d256_g4", threads: 128, slices: 1, parts: 8 });
        assert_eq!(plan_of(1, 32, 32, 64, 100).parts, 2);
    }

    #[test]
    fn many_tokens_are_not_cut() {
        assert_eq!(plan_of(512, 32, 8, 128, 8192).parts, 1);
        assert_eq!(plan_of(1, 1, 1, 1, 1).parts, 1);
    }

    #[test]
    fn large_heads_are_refused() {
        let problem = GpuProblem { tokens: 1, group: 1, kv_heads: 1, head_dim: 513, keys: 1 };
        assert_eq!(plan(problem), None);
    }
}

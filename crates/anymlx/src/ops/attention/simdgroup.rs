//! Attention of many tokens on the matrix units of Apple's GPUs.

use bytemuck::{Pod, Zeroable};

use super::{Block, gpu::GpuProblem};
use crate::{
    CommandEncoder, KernelKey, Launch, MlxBuffer, NativeTexts, Result, TensorType,
    ops::{check::Check, launch},
    read, write,
};

pub(in crate::ops) const METAL: &str = gpu_text!("../gpu/dense.h", "attention_simdgroup.metal");
/// Tokens of a simdgroup.
const TOKENS: usize = 8;
/// Fewer leave most of the matrices empty.
const MIN_TOKENS: usize = 16;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SimdgroupBlock {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    capacity: u32,
    window: u32,
    scale: f32,
    softcap: f32,
    tokens: u32,
}

/// What is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SimdgroupPlan {
    variant: &'static str,
    simdgroups: u32,
}

/// `None` where the portable kernel is the one to take.
pub(super) fn plan(problem: &GpuProblem, native: NativeTexts) -> Option<SimdgroupPlan> {
    if native != NativeTexts::Metal || problem.tokens < MIN_TOKENS || !problem.head_dim.is_multiple_of(8) {
        return None;
    }
    let (variant, simdgroups) = match problem.head_dim {
        0..=64 => ("simdgroup_d64", 4),
        65..=128 => ("simdgroup_d128", 4),
        // Four would need more threadgroup memory than there is.
        129..=256 => ("simdgroup_d256", 2),
        _ => return None,
    };
    Some(SimdgroupPlan { variant, simdgroups })
}

/// Records attention; the buffers are queries, keys, values, positions and output.
pub(super) fn attention(
    encoder: &mut CommandEncoder,
    check: Check,
    block: &Block,
    tokens: usize,
    plan: SimdgroupPlan,
    [queries, keys, values, positions, output]: [&MlxBuffer; 5],
) -> Result<()> {
    let key = KernelKey { operation: "attention", element: TensorType::Dense(keys.dtype()), variant: plan.variant };
    let kernel = launch::gpu_kernel(encoder, check, key, METAL)?;
    let block = SimdgroupBlock {
        heads: block.heads,
        kv_heads: block.kv_heads,
        head_dim: block.head_dim,
        capacity: block.capacity,
        window: block.window,
        scale: block.scale,
        softcap: block.softcap,
        tokens: check.u32("tokens", tokens)?,
    };
    let of_group = TOKENS * plan.simdgroups as usize;
    let launch = Launch {
        groups: [check.u32("groups of tokens", tokens.div_ceil(of_group))?, block.heads, 1],
        threads_per_group: 32 * plan.simdgroups,
        items: 1,
        items_per_chunk: 1,
    };
    let [q, k, v, p] = [queries, keys, values, positions].map(read);
    encoder.dispatch(&kernel, &[q, k, v, p, write(output)], &block, launch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_tokens_on_metal() {
        let problem = |tokens, head_dim| GpuProblem { tokens, group: 1, kv_heads: 1, head_dim, keys: 512 };
        let chosen = |tokens, head_dim| plan(&problem(tokens, head_dim), NativeTexts::Metal).map(|plan| plan.variant);
        assert_eq!(plan(&problem(512, 128), NativeTexts::None), None);
        assert_eq!(chosen(15, 128), None);
        assert_eq!(chosen(16, 128), Some("simdgroup_d128"));
        assert_eq!([8, 64, 72, 256].map(|dim| chosen(512, dim).is_some()), [true; 4]);
        assert_eq!([4, 100, 264].map(|dim| chosen(512, dim)), [None; 3]);
    }
}

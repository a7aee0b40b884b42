//! Attention of many tokens on the tensor cores of NVIDIA's Hopper GPUs.

use bytemuck::{Pod, Zeroable};

use super::Block;
use crate::{
    CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, TensorType,
    ops::{check::Check, launch},
    read, write,
};

pub(in crate::ops) const GPU: &str = gpu_text!("../gpu/tensor_cores.h", "attention_tiles.cu");
pub(in crate::ops) const ELEMENT: TensorType = TensorType::Dense(DType::F16);
/// The architecture whose instructions the text uses.
pub(in crate::ops) const ARCHITECTURE: u32 = 90;
/// From so many tokens on a tile is filled well enough.
const MIN_TOKENS: usize = 16;
/// Tokens of a warpgroup.
const WARPGROUP_TOKENS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TilesBlock {
    tokens: u32,
    heads: u32,
    kv_heads: u32,
    capacity: u32,
    window: u32,
    scale: f32,
    softcap: f32,
}

/// What is given.
#[derive(Debug, Clone, Copy)]
struct Problem {
    tokens: usize,
    head_dim: usize,
    cache: DType,
    scale: f32,
}

/// What is chosen: a kernel and the warpgroups of its threadgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    variant: &'static str,
    warpgroups: usize,
}

/// `None` for problems that are not for the tensor cores.
fn plan(problem: Problem) -> Option<Plan> {
    // The kernel takes the maximum of the scores before it scales them.
    let scale_fits = problem.scale >= 0.0;
    if problem.tokens < MIN_TOKENS || problem.cache != DType::F16 || !scale_fits {
        return None;
    }
    match problem.head_dim {
        64 => Some(Plan { variant: "d64", warpgroups: 2 }),
        128 => Some(Plan { variant: "d128", warpgroups: 3 }),
        256 => Some(Plan { variant: "d256", warpgroups: 2 }),
        _ => None,
    }
}

/// Records attention where it is for the tensor cores, and says whether it is. The buffers are queries, keys,
/// values, positions and output.
pub(super) fn attention(
    encoder: &mut CommandEncoder,
    check: Check,
    block: &Block,
    tokens: usize,
    [queries, keys, values, positions, output]: [&MlxBuffer; 5],
) -> Result<bool> {
    let head_dim = block.head_dim as usize;
    let problem = Problem { tokens, head_dim, cache: keys.dtype(), scale: block.scale };
    let aligned = launch::vector_columns(head_dim, &[queries, keys, values, output]) > 0;
    let exact = encoder.device().native_texts().is_exactly_cuda(ARCHITECTURE);
    let Some(plan) = plan(problem).filter(|_| exact && aligned) else { return Ok(false) };
    let key = KernelKey { operation: "attention_tiles", element: ELEMENT, variant: plan.variant };
    let kernel = launch::gpu_kernel(encoder, check, key, GPU)?;
    let tiles_block = TilesBlock {
        tokens: check.u32("tokens", tokens)?,
        heads: block.heads,
        kv_heads: block.kv_heads,
        capacity: block.capacity,
        window: block.window,
        scale: block.scale,
        softcap: block.softcap,
    };
    let tiles = tokens.div_ceil(WARPGROUP_TOKENS * plan.warpgroups);
    let launch = Launch {
        groups: [block.heads, check.u32("tiles", tiles)?, 1],
        // At most 3 warpgroups.
        threads_per_group: 128 * plan.warpgroups as u32,
        ..Launch::default()
    };
    let [q, k, v, p] = [queries, keys, values, positions].map(read);
    encoder.dispatch(&kernel, &[q, k, v, p, write(output)], &tiles_block, launch)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(tokens: usize, head_dim: usize) -> Option<Plan> {
        plan(Problem { tokens, head_dim, cache: DType::F16, scale: 0.1 })
    }

    #[test]
    fn many_tokens_and_known_heads_are_taken() {
        assert_eq!(plan_of(2048, 128), Some(Plan { variant: "d128", warpgroups: 3 }));
        assert_eq!(plan_of(16, 64), Some(Plan { variant: "d64", warpgroups: 2 }));
        assert_eq!(plan_of(512, 256).unwrap().variant, "d256");
    }

    #[test]
    fn others_are_left() {
        assert_eq!(plan_of(15, 128), None);
        assert_eq!(plan_of(512, 96), None);
        assert_eq!(plan(Problem { tokens: 512, head_dim: 64, cache: DType::F32, scale: 0.1 }), None);
        for scale in [-0.1, f32::NAN] {
            assert_eq!(plan(Problem { tokens: 512, head_dim: 64, cache: DType::F16, scale }), None);
        }
    }
}

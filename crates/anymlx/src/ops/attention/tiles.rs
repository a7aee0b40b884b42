//! Attention of many tokens on the tensor cores of NVIDIA's Hopper GPUs.

use bytemuck::{Pod, Zeroable};

use super::Block;
use crate::{
    CommandEncoder, DType, KernelKey, Launch, MlxBuffer, Result, TensorType,
    ops::{check::Check, launch},
    read, write,
};

/// A kernel for heads of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) struct Kernel {
    pub(in crate::ops) variant: &'static str,
    pub(in crate::ops) text: &'static str,
    /// Warpgroups of a threadgroup.
    warpgroups: u32,
}

macro_rules! kernel {
    ($head_dim:literal, $warpgroups:literal) => {
        Kernel {
            variant: concat!("d", $head_dim),
            text: concat!(
                "#define HEAD_DIM ",
                $head_dim,
                "\n#define WARPGROUPS ",
                $warpgroups,
                "\n",
                gpu_text!("../gpu/tensor_cores.h", "attention_tiles.cu")
            ),
            warpgroups: $warpgroups,
        }
    };
}

/// For heads of 64, 128 and 256.
pub(in crate::ops) const KERNELS: [Kernel; 3] = [kernel!(64, 2), kernel!(128, 3), kernel!(256, 2)];
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

/// `None` for problems that are not for the tensor cores.
fn plan(problem: Problem) -> Option<Kernel> {
    // The kernel takes the maximum of the scores before it scales them.
    let scale_fits = problem.scale >= 0.0;
    if problem.tokens < MIN_TOKENS || problem.cache != DType::F16 || !scale_fits {
        return None;
    }
    let [d64, d128, d256] = KERNELS;
    match problem.head_dim {
        64 => Some(d64),
        128 => Some(d128),
        256 => Some(d256),
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
    let Some(choice) = plan(problem).filter(|_| exact && aligned) else { return Ok(false) };
    let key = KernelKey { operation: "attention_tiles", element: ELEMENT, variant: choice.variant };
    let kernel = launch::gpu_kernel(encoder, check, key, choice.text)?;
    let tiles_block = TilesBlock {
        tokens: check.u32("tokens", tokens)?,
        heads: block.heads,
        kv_heads: block.kv_heads,
        capacity: block.capacity,
        window: block.window,
        scale: block.scale,
        softcap: block.softcap,
    };
    let tiles = tokens.div_ceil(WARPGROUP_TOKENS * choice.warpgroups as usize);
    let launch = Launch {
        groups: [block.heads, check.u32("tiles", tiles)?, 1],
        threads_per_group: 128 * choice.warpgroups,
        ..Launch::default()
    };
    let [q, k, v, p] = [queries, keys, values, positions].map(read);
    encoder.dispatch(&kernel, &[q, k, v, p, write(output)], &tiles_block, launch)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(tokens: usize, head_dim: usize) -> Option<&'static str> {
        plan(Problem { tokens, head_dim, cache: DType::F16, scale: 0.1 }).map(|kernel| kernel.variant)
    }

    #[test]
    fn many_tokens_and_known_heads_are_taken() {
        assert_eq!(variant(2048, 128), Some("d128"));
        assert_eq!(variant(16, 64), Some("d64"));
        assert_eq!(variant(512, 256), Some("d256"));
    }

    #[test]
    fn others_are_left() {
        assert_eq!(variant(15, 128), None);
        assert_eq!(variant(512, 96), None);
        assert_eq!(plan(Problem { tokens: 512, head_dim: 64, cache: DType::F32, scale: 0.1 }), None);
        for scale in [-0.1, f32::NAN] {
            assert_eq!(plan(Problem { tokens: 512, head_dim: 64, cache: DType::F16, scale }), None);
        }
    }
}

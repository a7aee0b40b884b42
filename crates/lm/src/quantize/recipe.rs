//! Which type each tensor of a file gets.
//!
//! The mixed recipes give more bits to the tensors that need them. Their rules are facts of llama.cpp (`src/llama-quant.cpp`
//! as packed in PyPI `llama-cpp-python` 0.3.36), so that a file has the types that its name promises.

use std::{fmt, str::FromStr};

use anymlx_formats::{DType, QuantType, TensorType};

use crate::{LmError, Result};

macro_rules! recipes {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $text:literal, $base:expr;)*) => {
        /// A named choice of types for the tensors of a GGUF file.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)]
        #[non_exhaustive]
        pub enum Recipe {
            $($(#[$doc])* $name,)*
        }

        impl Recipe {
            /// Every recipe.
            pub const ALL: &'static [Recipe] = &[$(Recipe::$name),*];

            /// Name in lower case: `q4_k_m`, ..
            pub const fn name(self) -> &'static str {
                match self { $(Recipe::$name => $text,)* }
            }

            /// Number under `general.file_type`.
            pub const fn file_type(self) -> u32 {
                match self { $(Recipe::$name => $id,)* }
            }

            /// The type that most matrices get.
            pub const fn base(self) -> TensorType {
                match self { $(Recipe::$name => $base,)* }
            }
        }
    };
}

const fn quantized(quant: QuantType) -> TensorType {
    TensorType::Quantized(quant)
}

recipes! {
    /// All matrices in single precision.
    F32 = 0, "f32", TensorType::Dense(DType::F32);
    /// All matrices in half precision.
    F16 = 1, "f16", TensorType::Dense(DType::F16);
    /// All matrices in brain floating point.
    BF16 = 32, "bf16", TensorType::Dense(DType::BF16);
    /// 8 bits.
    Q8_0 = 7, "q8_0", quantized(QuantType::Q8_0);
    /// 6 bits.
    Q6_K = 18, "q6_k", quantized(QuantType::Q6_K);
    /// 5 bits, more for the matrices that need it.
    Q5_K_M = 17, "q5_k_m", quantized(QuantType::Q5_K);
    /// 5 bits.
    Q5_K_S = 16, "q5_k_s", quantized(QuantType::Q5_K);
    /// 5 bits, scale per 32.
    Q5_0 = 8, "q5_0", quantized(QuantType::Q5_0);
    /// 5 bits, scale and minimum per 32.
    Q5_1 = 9, "q5_1", quantized(QuantType::Q5_1);
    /// 4 bits, more for the matrices that need it.
    Q4_K_M = 15, "q4_k_m", quantized(QuantType::Q4_K);
    /// 4 bits, a little more for the matrices that need it most.
    Q4_K_S = 14, "q4_k_s", quantized(QuantType::Q4_K);
    /// 4 bits, scale per 32.
    Q4_0 = 2, "q4_0", quantized(QuantType::Q4_0);
    /// 4 bits, scale and minimum per 32.
    Q4_1 = 3, "q4_1", quantized(QuantType::Q4_1);
    /// 4 bits for unevenly spaced levels, scale per 32.
    IQ4_NL = 25, "iq4_nl", quantized(QuantType::IQ4_NL);
    /// 4 bits for unevenly spaced levels.
    IQ4_XS = 30, "iq4_xs", quantized(QuantType::IQ4_XS);
    /// 3 bits, much more for the matrices that need it.
    Q3_K_L = 13, "q3_k_l", quantized(QuantType::Q3_K);
    /// 3 bits, more for the matrices that need it.
    Q3_K_M = 12, "q3_k_m", quantized(QuantType::Q3_K);
    /// 3 bits.
    Q3_K_S = 11, "q3_k_s", quantized(QuantType::Q3_K);
    /// 2 bits, more for the matrices that need it.
    Q2_K = 10, "q2_k", quantized(QuantType::Q2_K);
    /// 2 bits.
    Q2_K_S = 21, "q2_k_s", quantized(QuantType::Q2_K);
    /// -1, 0 or 1, five to a byte.
    TQ1_0 = 36, "tq1_0", quantized(QuantType::TQ1_0);
    /// -1, 0 or 1, four to a byte.
    TQ2_0 = 37, "tq2_0", quantized(QuantType::TQ2_0);
}

impl FromStr for Recipe {
    type Err = LmError;

    fn from_str(name: &str) -> Result<Self> {
        // What llama.cpp takes the short names of the mixed recipes to mean.
        let full = match name.to_ascii_lowercase().as_str() {
            short @ ("q3_k" | "q4_k" | "q5_k") => format!("{short}_m"),
            full => full.to_owned(),
        };
        Recipe::ALL.iter().copied().find(|recipe| recipe.name() == full).ok_or_else(|| {
            let names: Vec<&str> = Recipe::ALL.iter().map(|recipe| recipe.name()).collect();
            LmError::invalid("quantize", format!("type `{name}` given, needed one of {}", names.join(", ")))
        })
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a recipe's exceptions are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mixing {
    /// Some tensors get other types than most.
    #[default]
    Mixed,
    /// Every matrix gets the base type, where its columns allow.
    Pure,
}

/// What the rules look at besides a tensor's name.
#[derive(Debug, Clone, Copy)]
pub(super) struct ModelFacts {
    pub(super) layers: usize,
    /// Query heads that share one key-value head.
    pub(super) heads_per_kv_head: usize,
    pub(super) experts: usize,
    /// True where the file has no `output.weight`: the embedding table is the output matrix as well.
    pub(super) tied: bool,
    /// True where an importance matrix is given.
    pub(super) weighted: bool,
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Output,
    Embedding,
    AttentionKey,
    AttentionValue,
    AttentionOutput,
    FeedForwardDown,
    Other,
}

impl Role {
    fn of(name: &str, tied: bool) -> Role {
        match name {
            "output.weight" => return Role::Output,
            "token_embd.weight" if tied => return Role::Output,
            "token_embd.weight" => return Role::Embedding,
            _ => {}
        }
        let parts = [
            ("attn_qkv.weight", Role::AttentionValue),
            ("attn_v.weight", Role::AttentionValue),
            ("attn_k.weight", Role::AttentionKey),
            ("attn_output.weight", Role::AttentionOutput),
            ("ffn_down", Role::FeedForwardDown),
        ];
        parts.iter().find(|(part, _)| name.contains(part)).map_or(Role::Other, |&(_, role)| role)
    }
}

/// True for matrices that files keep in 32 or 16 bits whatever the recipe: small, and felt when rounded.
pub(super) fn is_kept(name: &str, shape: &[u64]) -> bool {
    const KEPT: [&str; 7] = [
        "_norm.weight",
        "ffn_gate_inp.weight",
        "ssm_conv1d",
        "position_embd",
        "token_types",
        "attn_rel_b",
        "patch_embd",
    ];
    shape.len() < 2 || !name.ends_with("weight") || KEPT.iter().any(|part| name.contains(part))
}

/// The type of the matrix `name`, whose rows have `columns` elements.
pub(super) fn choose(recipe: Recipe, mixing: Mixing, facts: &ModelFacts, name: &str, columns: u64) -> TensorType {
    let wanted = match (recipe.base(), mixing) {
        (base @ TensorType::Dense(_), _) => return base,
        (base, Mixing::Pure) => base,
        (base @ TensorType::Mlx(_), _) => return base,
        (TensorType::Quantized(base), Mixing::Mixed) => quantized(mixed(recipe, base, facts, name, columns)),
    };
    fallback(wanted, columns)
}

fn mixed(recipe: Recipe, base: QuantType, facts: &ModelFacts, name: &str, columns: u64) -> QuantType {
    use QuantType as T;
    use Recipe as R;
    let layer = layer_of(name).unwrap_or(0);
    let eighth = facts.layers / 8;
    let wants_more = layer < eighth || layer >= 7 * facts.layers / 8 || (layer - eighth) % 3 == 2;
    let grouped = facts.heads_per_kv_head >= 4;
    match (Role::of(name, facts.tied), recipe) {
        (Role::Output, _) if !columns.is_multiple_of(base.block_len() as u64) => T::Q8_0,
        (Role::Output, R::Q8_0) => T::Q8_0,
        (Role::Output, _) => T::Q6_K,
        (Role::Embedding, R::TQ1_0 | R::TQ2_0) => T::Q4_K,

        (Role::AttentionValue | Role::AttentionKey, _) if facts.experts == 8 => T::Q8_0,
        // Models of 80 layers have small value matrices, which are worth more bits.
        (Role::AttentionValue, R::Q2_K | R::Q3_K_S | R::Q3_K_M | R::Q4_K_S) if facts.layers == 80 => T::Q5_K,
        (Role::AttentionValue, R::Q4_K_M) if facts.layers == 80 && !wants_more => T::Q5_K,
        (Role::AttentionValue, R::Q2_K) => {
            if grouped {
                T::Q4_K
            } else {
                T::Q3_K
            }
        }
        (Role::AttentionValue, R::Q2_K_S) if grouped => T::Q4_K,
        (Role::AttentionValue, R::Q3_K_M) => {
            if layer < 2 {
                T::Q5_K
            } else {
                T::Q4_K
            }
        }
        (Role::AttentionValue, R::Q3_K_L) => T::Q5_K,
        (Role::AttentionValue, R::IQ4_NL | R::IQ4_XS) if grouped => T::Q5_K,
        (Role::AttentionValue, R::Q4_K_M | R::Q5_K_M) if wants_more => T::Q6_K,
        (Role::AttentionValue, R::Q4_K_S) if layer < 4 => T::Q5_K,

        (Role::AttentionOutput, R::Q2_K | R::Q3_K_S | R::Q3_K_M | R::Q4_K_S | R::Q4_K_M | R::IQ4_NL | R::IQ4_XS)
            if facts.experts == 8 =>
        {
            T::Q5_K
        }
        (Role::AttentionOutput, R::Q2_K) => T::Q3_K,
        (Role::AttentionOutput, R::Q3_K_M) => T::Q4_K,
        (Role::AttentionOutput, R::Q3_K_L) => T::Q5_K,

        (Role::FeedForwardDown, R::Q2_K) => T::Q3_K,
        (Role::FeedForwardDown, R::Q2_K_S) if layer < eighth => T::Q4_K,
        (Role::FeedForwardDown, R::Q3_K_M) => {
            if layer < facts.layers / 16 {
                T::Q5_K
            } else {
                T::Q4_K
            }
        }
        (Role::FeedForwardDown, R::Q3_K_L) => T::Q5_K,
        (Role::FeedForwardDown, R::IQ4_NL | R::IQ4_XS) if layer < eighth && !facts.weighted => T::Q5_K,
        (Role::FeedForwardDown, R::Q4_K_M | R::Q5_K_M) if wants_more => T::Q6_K,
        (Role::FeedForwardDown, R::Q4_K_S) if layer < eighth => T::Q5_K,
        (Role::FeedForwardDown, R::Q4_0) if layer < eighth && facts.weighted => T::Q4_1,
        (Role::FeedForwardDown, R::Q5_0) if layer < eighth && facts.weighted => T::Q5_1,
        _ => base,
    }
}

/// `N` of `blk.N.`.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// The nearest type of no fewer bits whose blocks fit rows of `columns` elements; half precision where none does.
fn fallback(wanted: TensorType, columns: u64) -> TensorType {
    use QuantType as T;
    let fits = |found: &TensorType| columns.is_multiple_of(found.block_len() as u64);
    if fits(&wanted) {
        return wanted;
    }
    let smaller = match wanted {
        TensorType::Quantized(T::Q6_K) => T::Q8_0,
        TensorType::Quantized(T::Q5_K) => T::Q5_1,
        TensorType::Quantized(T::Q4_K) => T::Q5_0,
        TensorType::Quantized(T::IQ4_XS) => T::IQ4_NL,
        _ => T::Q4_0,
    };
    Some(quantized(smaller)).filter(fits).unwrap_or(TensorType::Dense(DType::F16))
}

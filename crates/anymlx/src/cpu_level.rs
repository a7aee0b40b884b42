//! Instruction sets of CPU kernels.

use std::{fmt, str::FromStr};

use crate::{MlxError, Result};

/// Which instruction sets CPU kernels use. Each level contains the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CpuLevel {
    /// What every processor of the architecture has; loops are written to vectorise by themselves.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
}

impl CpuLevel {
    /// All levels, in order.
    pub const ALL: [CpuLevel; 3] = [CpuLevel::Scalar, CpuLevel::Avx2, CpuLevel::Avx512];

    /// Name as in `ANYMLX_CPU`.
    pub const fn name(self) -> &'static str {
        match self {
            CpuLevel::Scalar => "scalar",
            CpuLevel::Avx2 => "avx2",
            CpuLevel::Avx512 => "avx512",
        }
    }

    /// True when this processor has it.
    pub fn is_supported(self) -> bool {
        match self {
            CpuLevel::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 => {
                use std::arch::is_x86_feature_detected as has;
                has!("avx2") && has!("fma") && has!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 => {
                use std::arch::is_x86_feature_detected as has;
                CpuLevel::Avx2.is_supported()
                    && has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512dq")
                    && has!("avx512vl")
                    && has!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The best level that this processor has.
    pub fn best() -> Self {
        let supported = Self::ALL.into_iter().filter(|level| level.is_supported());
        supported.max().unwrap_or(CpuLevel::Scalar)
    }

    /// Itself, if this processor has it.
    ///
    /// # Errors
    /// `InvalidArgument` naming the levels that it has.
    pub fn check(self) -> Result<Self> {
        if self.is_supported() {
            return Ok(self);
        }
        let supported: Vec<_> = Self::ALL.into_iter().filter(|level| level.is_supported()).map(Self::name).collect();
        let message = format_args!("this processor lacks {self}; it has {}", supported.join(", "));
        Err(MlxError::invalid("cpu level", message))
    }
}

impl fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CpuLevel {
    type Err = MlxError;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| {
            MlxError::invalid("cpu level", format_args!("`{text}` given, needed scalar, avx2 or avx512"))
        })
    }
}

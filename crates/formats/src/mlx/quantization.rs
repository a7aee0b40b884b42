//! How the elements of a quantised matrix are packed.

use std::fmt;

use crate::{DType, FormatError};

/// What an element's code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `x = s q + b` with an unsigned integer `q`; scale `s` and bias `b` are floating-point numbers.
    Affine,
    /// `x = s v`, `v` an E2M1 number, `s` an E8M0 number.
    Mxfp4,
    /// `x = s v`, `v` an E4M3 number, `s` an E8M0 number.
    Mxfp8,
    /// `x = s v`, `v` an E2M1 number, `s` an E4M3 number.
    Nvfp4,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 4] = [Mode::Affine, Mode::Mxfp4, Mode::Mxfp8, Mode::Nvfp4];

    /// Name as MLX spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Affine => "affine",
            Mode::Mxfp4 => "mxfp4",
            Mode::Mxfp8 => "mxfp8",
            Mode::Nvfp4 => "nvfp4",
        }
    }

    /// The mode with this name.
    pub fn from_name(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// True where groups have a bias besides the scale, and both are floating-point numbers; elsewhere scales are one byte.
    pub const fn has_biases(self) -> bool {
        matches!(self, Mode::Affine)
    }

    /// Bits and group sizes that MLX accepts.
    const fn accepted(self) -> (&'static [u32], &'static [u32]) {
        match self {
            Mode::Affine => (&[1, 2, 3, 4, 5, 6, 8], &[32, 64, 128]),
            Mode::Mxfp4 => (&[4], &[32]),
            Mode::Mxfp8 => (&[8], &[32]),
            Mode::Nvfp4 => (&[4], &[16]),
        }
    }

    /// Bits and group size that MLX takes where none are given.
    pub(super) const fn defaults(self) -> (u32, u32) {
        match self {
            Mode::Affine => (4, 64),
            Mode::Mxfp4 => (4, 32),
            Mode::Mxfp8 => (8, 32),
            Mode::Nvfp4 => (4, 16),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Layout of a quantised matrix.
///
/// A row is one little-endian stream of bits: element `i` has bits `bits * i ..` of the row, the least significant first, whatever
/// the number of bits. Each [`Self::group_size`] elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantization {
    mode: Mode,
    bits: u32,
    group_size: u32,
}

impl Quantization {
    /// A layout that MLX can make.
    ///
    /// # Errors
    /// [`FormatError::InvalidArgument`] with the accepted values.
    pub fn new(mode: Mode, bits: u32, group_size: u32) -> Result<Self, FormatError> {
        let (accepted_bits, accepted_groups) = mode.accepted();
        if accepted_bits.contains(&bits) && accepted_groups.contains(&group_size) {
            return Ok(Self { mode, bits, group_size });
        }
        Err(FormatError::InvalidArgument {
            operation: "mlx quantisation",
            message: format!(
                "{mode} with {bits} bits in groups of {group_size} given, bits of {accepted_bits:?} in groups of \
                 {accepted_groups:?} are needed"
            ),
        })
    }

    /// What codes stand for.
    pub const fn mode(self) -> Mode {
        self.mode
    }

    /// Bits of one element.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// Consecutive elements of a row that share a scale.
    pub const fn group_size(self) -> u32 {
        self.group_size
    }

    /// Groups in a row of `columns` elements: the columns of the scales.
    ///
    /// # Errors
    /// When `columns` is 0 or no multiple of the group size.
    pub fn groups(self, columns: u64) -> Result<u64, FormatError> {
        let group_size = u64::from(self.group_size);
        if columns == 0 || !columns.is_multiple_of(group_size) {
            return Err(FormatError::InvalidArgument {
                operation: "mlx quantisation",
                message: format!("{self}: rows of {columns} elements given, a multiple of {group_size} is needed"),
            });
        }
        Ok(columns / group_size)
    }

    /// `u32` words in a row of `columns` elements: the columns of the packed weights.
    ///
    /// # Errors
    /// As [`Self::groups`], and when the bits of a row pass `u64`.
    pub fn packed_words(self, columns: u64) -> Result<u64, FormatError> {
        let groups = self.groups(columns)?;
        // A group is a multiple of 16 elements, and of 32 where bits are odd: whole words.
        let words_of_group = u64::from(self.group_size * self.bits / 32);
        groups.checked_mul(words_of_group).ok_or_else(|| FormatError::InvalidArgument {
            operation: "mlx quantisation",
            message: format!("{self}: the words of {columns} elements pass 2^64"),
        })
    }

    /// Elements in a row of `words` packed `u32` words: inverse of [`Self::packed_words`].
    ///
    /// # Errors
    /// When the words are no whole number of groups.
    pub fn columns(self, words: u64) -> Result<u64, FormatError> {
        let words_of_group = u64::from(self.group_size * self.bits / 32);
        let columns = (words / words_of_group).checked_mul(u64::from(self.group_size));
        match columns {
            Some(columns) if words > 0 && words.is_multiple_of(words_of_group) => Ok(columns),
            _ => Err(FormatError::InvalidArgument {
                operation: "mlx quantisation",
                message: format!("{self}: rows of {words} words given, a multiple of {words_of_group} is needed"),
            }),
        }
    }
}

impl fmt::Display for Quantization {
    /// `affine 4-bit g64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-bit g{}", self.mode, self.bits, self.group_size)
    }
}

/// How an MLX matrix is stored: its packing and the type of its scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MlxType {
    quantization: Quantization,
    scales: DType,
}

impl MlxType {
    /// `scales` is the type of the scales, and of the biases where the mode has them.
    ///
    /// # Errors
    /// [`FormatError::InvalidArgument`] unless the type is `f32`, `f16` or `bf16` in affine mode and `u8` in the others.
    pub fn new(quantization: Quantization, scales: DType) -> Result<Self, FormatError> {
        let affine = quantization.mode().has_biases();
        let fits = match scales {
            DType::F32 | DType::F16 | DType::BF16 => affine,
            DType::U8 => !affine,
            _ => false,
        };
        if fits {
            return Ok(Self { quantization, scales });
        }
        let needed = if affine { "f32, f16 or bf16" } else { "u8" };
        Err(FormatError::InvalidArgument {
            operation: "mlx quantisation",
            message: format!("{quantization}: scales of {scales} given, {needed} is needed"),
        })
    }

    /// Packing of the codes.
    pub const fn quantization(self) -> Quantization {
        self.quantization
    }

    /// Type of scales and biases.
    pub const fn scales(self) -> DType {
        self.scales
    }

    /// Consecutive elements of a row that share a scale.
    pub const fn group_len(self) -> usize {
        self.quantization.group_size as usize
    }

    /// Bytes of the codes of a group.
    pub const fn group_bytes(self) -> usize {
        (self.quantization.group_size * self.quantization.bits / 8) as usize
    }
}

impl fmt::Display for MlxType {
    /// `affine 4-bit g64 bf16`; the modes whose scales are bytes without a type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scales {
            DType::U8 => write!(f, "{}", self.quantization),
            scales => write!(f, "{} {scales}", self.quantization),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_mlx_makes_is_accepted() {
        let mut accepted = 0;
        for mode in Mode::ALL {
            assert_eq!(Mode::from_name(mode.name()), Some(mode));
            let (bits, group_size) = mode.defaults();
            assert!(Quantization::new(mode, bits, group_size).is_ok());
            for bits in 0..40 {
                for group_size in 0..300 {
                    accepted += u32::from(Quantization::new(mode, bits, group_size).is_ok());
                }
            }
        }
        assert_eq!(accepted, 7 * 3 + 3);
        let error = Quantization::new(Mode::Nvfp4, 4, 32).unwrap_err().to_string();
        assert_eq!(
            error,
            "mlx quantisation: nvfp4 with 4 bits in groups of 32 given, bits of [4] in groups of [16] are needed"
        );
    }

    #[test]
    fn words_and_columns_are_inverse() {
        for (mode, bits, group_size) in
            [(Mode::Affine, 3, 32), (Mode::Affine, 5, 128), (Mode::Affine, 1, 64), (Mode::Nvfp4, 4, 16)]
        {
            let layout = Quantization::new(mode, bits, group_size).unwrap();
            for groups in 1..9 {
                let columns = groups * u64::from(group_size);
                let words = layout.packed_words(columns).unwrap();
                assert_eq!(words * 32, columns * u64::from(bits));
                assert_eq!((layout.columns(words).unwrap(), layout.groups(columns).unwrap()), (columns, groups));
            }
            assert!(layout.packed_words(u64::from(group_size) + 1).is_err());
            assert!(layout.packed_words(0).is_err() && layout.columns(0).is_err());
            assert!(layout.columns(u64::MAX).is_err());
        }
        let eight = Quantization::new(Mode::Affine, 8, 32).unwrap();
        assert!(eight.columns(u64::MAX - 7).unwrap_err().to_string().contains("affine 8-bit g32"));
    }
}

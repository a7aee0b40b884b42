//! Tables that texts of some encodings read: written from the ones of the formats, so that there is one copy.

use std::fmt::Write;

use anymlx_formats::{
    mlx::Mode,
    quant::{
        IQ4_LEVELS, QuantType, TensorType,
        fp4::E2M1_DOUBLED,
        grid::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID},
    },
};

/// The tables of an encoding in the dialect, each with a macro that says that it is there; empty for most.
///
/// `levels` has the values of four-bit codes, which the macros `LEVELS_0` to `LEVELS_3` have as bytes; `grid` has points, four
/// signed bytes to a word.
pub(crate) fn text(encoding: TensorType) -> String {
    match Table::of(encoding) {
        Some(Table::Levels(values)) => levels(values),
        Some(Table::Grid(bytes)) => grid(bytes),
        None => String::new(),
    }
}

/// Whether an encoding has tables.
pub(crate) fn has_any(encoding: TensorType) -> bool {
    Table::of(encoding).is_some()
}

enum Table {
    Levels(&'static [i8; 16]),
    Grid(&'static [i8]),
}

impl Table {
    fn of(encoding: TensorType) -> Option<Self> {
        Some(match encoding {
            TensorType::Quantized(QuantType::IQ4_NL | QuantType::IQ4_XS) => Self::Levels(&IQ4_LEVELS),
            TensorType::Quantized(QuantType::MXFP4 | QuantType::NVFP4) => Self::Levels(&E2M1_DOUBLED),
            TensorType::Quantized(QuantType::IQ1_S | QuantType::IQ1_M) => Self::Grid(IQ1_GRID.as_flattened()),
            TensorType::Quantized(QuantType::IQ2_XXS) => Self::Grid(IQ2_XXS_GRID.as_flattened()),
            TensorType::Quantized(QuantType::IQ2_XS) => Self::Grid(IQ2_XS_GRID.as_flattened()),
            TensorType::Quantized(QuantType::IQ2_S) => Self::Grid(IQ2_S_GRID.as_flattened()),
            TensorType::Quantized(QuantType::IQ3_XXS) => Self::Grid(IQ3_XXS_GRID.as_flattened()),
            TensorType::Quantized(QuantType::IQ3_S) => Self::Grid(IQ3_S_GRID.as_flattened()),
            TensorType::Mlx(layout) if matches!(layout.quantization().mode(), Mode::Mxfp4 | Mode::Nvfp4) => {
                Self::Levels(&E2M1_DOUBLED)
            }
            _ => return None,
        })
    }
}

fn levels(values: &[i8; 16]) -> String {
    let mut text = table("ELEMENT_HAS_LEVELS", "levels", values.iter().map(|&value| i32::from(value).cast_unsigned()));
    for (index, word) in words(values).enumerate() {
        writeln!(text, "#define LEVELS_{index} {word}u").expect("a string takes any text");
    }
    text
}

/// Each four bytes as a word.
fn words(bytes: &[i8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(word.map(i8::cast_unsigned)))
}

fn grid(bytes: &[i8]) -> String {
    table("ELEMENT_HAS_GRID", "grid", words(bytes))
}

fn table(macro_name: &str, name: &str, words: impl Iterator<Item = u32>) -> String {
    let mut text = format!("#define {macro_name} 1\nTABLE(uint, {name}) = {{");
    for (index, word) in words.enumerate() {
        let separator = if index.is_multiple_of(16) { "\n" } else { " " };
        // Writing to a string cannot fail.
        write!(text, "{separator}{word}u,").expect("a string takes any text");
    }
    text + "\n};\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_which_encodings_have_tables() {
        for encoding in
            crate::ops::gpu::file_encodings().chain(crate::ops::gpu::mlx_layouts().into_iter().map(TensorType::Mlx))
        {
            assert_eq!(has_any(encoding), !text(encoding).is_empty(), "{encoding}");
        }
    }

    #[test]
    fn tables_hold_every_entry() {
        let words = |quant: QuantType| text(quant.into()).matches("u,").count();
        assert_eq!(words(QuantType::MXFP4), 16);
        assert_eq!(words(QuantType::IQ1_M), 4096);
        assert_eq!(words(QuantType::IQ3_S), 512);
        assert_eq!(words(QuantType::Q4_K), 0);
        assert!(text(QuantType::IQ4_NL.into()).contains("4294967169u, 4294967192u"), "-127 and -104 come first");
    }
}

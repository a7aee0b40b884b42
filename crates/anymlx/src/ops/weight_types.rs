//! The manual's table of weight types against what the library does.

use std::path::Path;

use anymlx_formats::{
    mlx::{MlxType, Mode, Quantization},
    quant::{QuantType, TensorType},
};

use super::{can_multiply, gpu::has_format};
use crate::DType;

fn row(name: &str, encoding: TensorType) -> String {
    let state = |direct: bool| if direct { "direct" } else { "converted" };
    format!("| {name} | {} | {} |\n", state(can_multiply(encoding)), state(has_format(encoding)))
}

#[test]
fn the_table_of_the_manual_is_true() {
    let mut table = "| type | CPU | GPU |\n|---|---|---|\n".to_owned();
    let dense = DType::ALL.into_iter().map(TensorType::Dense);
    for encoding in dense.chain(QuantType::ALL.iter().copied().map(TensorType::Quantized)) {
        table += &row(encoding.name(), encoding);
    }
    for mode in Mode::ALL {
        for bits in 1..=8 {
            let layouts = [16, 32, 64, 128].into_iter().filter_map(|group| Quantization::new(mode, bits, group).ok());
            let scales = [DType::F32, DType::F16, DType::BF16, DType::U8];
            let rows: std::collections::BTreeSet<String> = layouts
                .flat_map(|layout| scales.map(|scales| MlxType::new(layout, scales)))
                .filter_map(Result::ok)
                .map(|layout| row(&format!("MLX {mode} {bits}-bit"), TensorType::Mlx(layout)))
                .collect();
            assert!(rows.len() <= 1, "groups and scales of {mode} {bits}-bit differ: {rows:?}");
            table.extend(rows);
        }
    }
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/weight-types.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    assert!(manual.contains(&table), "docs/weight-types.md needs this table:\n{table}");
}

//! How much the columns of matrices matter: mean squares of their inputs over a text.
//!
//! Two formats are read. A GGUF file with `general.type` = `imatrix` has for each matrix `NAME` a tensor `NAME.in_sum2`, sums of
//! squares for each column, `[experts, columns]`, and `NAME.counts`, how many inputs were summed, `[experts, 1]`; this one is
//! written. The older binary file of llama.cpp is a count of entries, and for each the length and text of its name, a number of
//! calls, a number of values and the values, all 32-bit little-endian. Source: `tools/imatrix` of llama.cpp.

use std::collections::BTreeMap;
use std::io::Write;

use anymlx_formats::{
    DType, TensorType,
    gguf::{Gguf, GgufWriter, StringArray, Value, WriteError},
};

use crate::{LmError, Result};

const OPERATION: &str = "importance matrix";
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// What is known about one matrix.
#[derive(Debug, Clone, PartialEq, Default)]
struct Entry {
    /// Sums of squares, one set of columns after the other.
    sums: Vec<f64>,
    /// Inputs summed up in each set.
    counts: Vec<f64>,
}

/// Mean squares of the inputs of matrices.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImportanceMatrix {
    entries: BTreeMap<String, Entry>,
}

impl ImportanceMatrix {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file of either format.
    ///
    /// # Errors
    /// For broken files, sums without counts, and values that are negative or not finite.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.starts_with(b"GGUF") { Self::parse_gguf(bytes) } else { Self::parse_binary(bytes) }
    }

    fn parse_gguf(bytes: &[u8]) -> Result<Self> {
        let gguf = Gguf::parse(bytes)?;
        if gguf.metadata.string("general.type")? != Some("imatrix") {
            return Err(LmError::invalid(OPERATION, "the file's `general.type` is not `imatrix`"));
        }
        let numbers = |name: &str| -> Result<Vec<f64>> {
            let info = gguf.require_tensor(name)?;
            if info.tensor_type != TensorType::Dense(DType::F32) {
                return Err(LmError::invalid(
                    OPERATION,
                    format!("tensor `{name}` is {}, needed F32", info.tensor_type),
                ));
            }
            let (values, _) = info.data(bytes)?.as_chunks::<4>();
            Ok(values.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect())
        };
        let mut matrix = Self::new();
        for name in gguf.tensors.iter().filter_map(|tensor| tensor.name.strip_suffix(SUMS)) {
            let entry =
                Entry { sums: numbers(&format!("{name}{SUMS}"))?, counts: numbers(&format!("{name}{COUNTS}"))? };
            matrix.insert(name, entry)?;
        }
        Ok(matrix)
    }

    fn parse_binary(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let mut take = |len: usize| -> Result<&[u8]> {
            let (taken, after) = rest
                .split_at_checked(len)
                .ok_or_else(|| LmError::invalid(OPERATION, format!("{len} bytes announced, {} left", rest.len())))?;
            rest = after;
            Ok(taken)
        };
        let length = |bytes: &[u8]| -> Result<usize> {
            let number = i32::from_le_bytes(bytes.try_into().unwrap_or_default());
            usize::try_from(number).map_err(|_| LmError::invalid(OPERATION, format!("{number} given as a length")))
        };
        let mut matrix = Self::new();
        for _ in 0..length(take(4)?)? {
            let name_len = length(take(4)?)?;
            let name = String::from_utf8_lossy(take(name_len)?).into_owned();
            let calls = length(take(4)?)?;
            let values = length(take(4)?)?;
            let values = take(values.saturating_mul(4))?.as_chunks::<4>().0;
            let sums = values.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect();
            matrix.insert(&name, Entry { sums, counts: vec![calls as f64] })?;
        }
        Ok(matrix)
    }

    fn insert(&mut self, name: &str, entry: Entry) -> Result<()> {
        let fine = |values: &[f64]| values.iter().all(|value| value.is_finite() && *value >= 0.0);
        let sets = entry.counts.len();
        if sets == 0 || entry.sums.is_empty() || !entry.sums.len().is_multiple_of(sets) {
            let message = format!("`{name}` has {} sums and {sets} counts, needed whole rows", entry.sums.len());
            return Err(LmError::invalid(OPERATION, message));
        }
        if !fine(&entry.sums) || !fine(&entry.counts) {
            return Err(LmError::invalid(OPERATION, format!("`{name}` has values that are negative or not finite")));
        }
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Adds the squares of inputs of the matrix `name`, rows of `columns` values each.
    pub(crate) fn add(&mut self, name: &str, columns: usize, inputs: &[f32]) {
        let entry = self.entries.entry(name.to_owned()).or_default();
        entry.sums.resize(columns, 0.0);
        entry.counts.resize(1, 0.0);
        for row in inputs.chunks_exact(columns) {
            for (sum, &value) in entry.sums.iter_mut().zip(row) {
                *sum += f64::from(value) * f64::from(value);
            }
            entry.counts[0] += 1.0;
        }
    }

    /// True when no matrix is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names of the matrices that are known, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Mean squares of the columns of the matrix `name`: `columns` values, or that many for each expert. `None` where nothing
    /// is known about it. Sets without inputs count all columns alike.
    ///
    /// # Errors
    /// When the file is about a matrix with another number of columns.
    pub fn weights(&self, name: &str, columns: usize) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let found = entry.sums.len() / entry.counts.len();
        if found != columns {
            let message =
                format!("`{name}` has {found} columns there and {columns} in the model; is it of this model?");
            return Err(LmError::invalid(OPERATION, message));
        }
        let mean = |(sums, &count): (&[f64], &f64)| -> Vec<f32> {
            sums.iter().map(|sum| if count > 0.0 { (sum / count) as f32 } else { 1.0 }).collect()
        };
        Ok(Some(entry.sums.chunks_exact(columns).zip(&entry.counts).flat_map(mean).collect()))
    }

    /// Writes a GGUF file; `dataset` says what text the inputs come from, `chunks` of `chunk_len` tokens.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write(&self, out: impl Write, dataset: &str, chunks: u32, chunk_len: u32) -> Result<u64, WriteError> {
        let datasets: StringArray = [dataset].into_iter().collect();
        let mut writer = GgufWriter::new()
            .metadata("general.type", "imatrix")
            .metadata("imatrix.datasets", Value::from(datasets))
            .metadata("imatrix.chunk_count", chunks)
            .metadata("imatrix.chunk_size", chunk_len);
        let bytes = |values: &[f64]| values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect::<Vec<u8>>();
        for (name, entry) in &self.entries {
            let sets = entry.counts.len() as u64;
            let columns = entry.sums.len() as u64 / sets;
            writer = writer.tensor(format!("{name}{SUMS}"), &[columns, sets], DType::F32, bytes(&entry.sums)).tensor(
                format!("{name}{COUNTS}"),
                &[1, sets],
                DType::F32,
                bytes(&entry.counts),
            );
        }
        writer.write_to(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> ImportanceMatrix {
        let mut matrix = ImportanceMatrix::new();
        matrix.add("a", 3, &[1.0, 2.0, 0.0, 3.0, -2.0, 0.0]);
        matrix.add("a", 3, &[0.0, 1.0, 0.0]);
        matrix.add("b", 1, &[0.5]);
        matrix
    }

    #[test]
    fn columns_have_the_mean_of_their_squares() {
        let matrix = matrix();
        assert_eq!(matrix.weights("a", 3).unwrap().unwrap(), [10.0 / 3.0, 3.0, 0.0]);
        assert_eq!(matrix.weights("c", 3).unwrap(), None);
        let error = matrix.weights("a", 4).unwrap_err().to_string();
        assert!(error.contains("3 columns there and 4 in the model"), "{error}");
    }

    #[test]
    fn a_file_comes_back() {
        let mut file = Vec::new();
        matrix().write(&mut file, "text", 2, 512).unwrap();
        assert_eq!(ImportanceMatrix::parse(&file).unwrap(), matrix());
    }

    #[test]
    fn the_binary_format_is_read() {
        let mut file = Vec::new();
        let mut number = |value: i32| file.extend(value.to_le_bytes());
        number(1);
        number(1);
        file.push(b'a');
        for value in [2, 3] {
            file.extend(i32::to_le_bytes(value));
        }
        for value in [2.0_f32, 4.0, 0.0] {
            file.extend(value.to_le_bytes());
        }
        assert_eq!(ImportanceMatrix::parse(&file).unwrap().weights("a", 3).unwrap().unwrap(), [1.0, 2.0, 0.0]);
        for len in 0..file.len() {
            let error = ImportanceMatrix::parse(&file[..len]).unwrap_err().to_string();
            assert!(error.contains("announced"), "{len}: {error}");
        }
        file[0..4].copy_from_slice(&(-1_i32).to_le_bytes());
        assert!(ImportanceMatrix::parse(&file).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut file = Vec::new();
        GgufWriter::new()
            .metadata("general.type", "imatrix")
            .tensor("a.in_sum2", &[1, 1], DType::F32, f32::NAN.to_le_bytes().to_vec())
            .tensor("a.counts", &[1, 1], DType::F32, 1_f32.to_le_bytes().to_vec())
            .write_to(&mut file)
            .unwrap();
        let error = ImportanceMatrix::parse(&file).unwrap_err().to_string();
        assert!(error.contains("not finite"), "{error}");
    }
}

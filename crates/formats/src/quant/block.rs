//! What every quantised layout provides, and the loops over many blocks.

use bytemuck::Pod;

/// One block of a quantised layout, as it lies in a file.
///
/// Implementors have alignment 1: `bytemuck::cast_slice` from file bytes cannot fail on alignment.
pub trait Block: Pod {
    /// The block's elements: `[f32; N]`.
    type Values: Pod;

    /// Writes all elements.
    fn dequantize(&self, values: &mut Self::Values);
}

/// A layout that can be made here, not only read.
pub trait QuantizeBlock: Block {
    /// Largest magnitude that the layout holds, where its scale does not tell by becoming infinite.
    const LARGEST: f32 = f32::MAX;

    /// The block that stores `values`. All of them are finite and at most [`Self::LARGEST`]; a scale past the range of
    /// binary16 becomes infinite.
    fn quantize(values: &Self::Values) -> Self;

    /// As [`Self::quantize`], where the squared error of each element counts as often as `importance` says (finite and
    /// not negative). Layouts whose scales leave no choice ignore it.
    fn quantize_weighted(values: &Self::Values, importance: &Self::Values) -> Self {
        let _ = importance;
        Self::quantize(values)
    }
}

/// Elements in one block.
pub(super) const fn len_of<B: Block>() -> usize {
    assert!(align_of::<B>() == 1, "blocks begin at any byte of a file");
    size_of::<B::Values>() / size_of::<f32>()
}

pub(super) fn dequantize_all<B: Block>(bytes: &[u8], values: &mut [f32]) {
    let blocks: &[B] = bytemuck::cast_slice(bytes);
    let values: &mut [B::Values] = bytemuck::cast_slice_mut(values);
    for (block, values) in blocks.iter().zip(values) {
        block.dequantize(values);
    }
}

/// The blocks of `values`. `importance` is empty, or holds the weights of one row's elements, which is a whole number of
/// blocks. `Err` is the index of the first block whose elements are too large or do not come back finite.
pub(super) fn quantize_all<B: QuantizeBlock>(
    values: &[f32],
    importance: &[f32],
    bytes: &mut [u8],
) -> Result<(), usize> {
    let values: &[B::Values] = bytemuck::cast_slice(values);
    let importance: &[B::Values] = bytemuck::cast_slice(importance);
    let blocks: &mut [B] = bytemuck::cast_slice_mut(bytes);
    let mut restored = <B::Values as bytemuck::Zeroable>::zeroed();
    for (index, (block, values)) in blocks.iter_mut().zip(values).enumerate() {
        let given: &[f32] = bytemuck::cast_slice(std::slice::from_ref(values));
        if given.iter().any(|value| value.abs() > B::LARGEST) {
            return Err(index);
        }
        *block = match importance.len() {
            0 => B::quantize(values),
            blocks_in_row => B::quantize_weighted(values, &importance[index % blocks_in_row]),
        };
        block.dequantize(&mut restored);
        let restored: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&restored));
        if !restored.iter().all(|value| value.is_finite()) {
            return Err(index);
        }
    }
    Ok(())
}

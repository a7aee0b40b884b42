//! The 8-bit form of activations.
//!
//! A row of `columns` values (a multiple of 32) takes [`QuantizedLayout::row_bytes`] bytes:
//!
//! | part | type | entries | meaning |
//! |---|---|---|---|
//! | quants | `i8` | `columns` | `q`, in -127..=127 |
//! | scales | `f32` | groups | of each 32 values: `x = scale * q` |
//! | sums | `i16` | 2 groups | of each 16 values: the sum of `q` |
//!
//! `groups` is `columns / 32` rounded up to a multiple of 8, the surplus being zero: kernels take eight groups at a
//! time. A row takes an odd number of cache lines, so that rows side by side never compete for the same cache sets.

/// Values that share a scale.
pub(in crate::ops) const GROUP: usize = 32;
/// Values that share a sum.
pub(in crate::ops) const SUM_GROUP: usize = 16;
/// How much finer the second of two steps is on CPUs: a power of two, so that both can be joined into one of 16 bits.
pub(in crate::ops) const STEP_RATIO: u32 = 256;
/// Alignment of rows.
pub(in crate::ops) const ALIGNMENT: usize = 64;

const GROUPS_TOGETHER: usize = 8;

/// Where the parts of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) struct QuantizedLayout {
    pub(in crate::ops) columns: usize,
    /// Groups, the zero ones at the end included.
    pub(in crate::ops) groups: usize,
    pub(in crate::ops) row_bytes: usize,
}

impl QuantizedLayout {
    /// `None` unless `columns` is a multiple of 32 (and not 0), or when the bytes cannot be counted.
    pub(in crate::ops) fn new(columns: usize) -> Option<Self> {
        if columns == 0 || !columns.is_multiple_of(GROUP) {
            return None;
        }
        let groups = (columns / GROUP).checked_next_multiple_of(GROUPS_TOGETHER)?;
        let used = groups.checked_mul(size_of::<f32>() + 2 * size_of::<i16>())?.checked_add(columns)?;
        let lines = used.div_ceil(ALIGNMENT) | 1;
        Some(Self { columns, groups, row_bytes: lines.checked_mul(ALIGNMENT)? })
    }

    /// Where the scales of a row begin.
    #[inline(always)]
    pub(in crate::ops) fn scales_offset(&self) -> usize {
        self.columns
    }

    /// Where the sums of a row begin.
    #[inline(always)]
    pub(in crate::ops) fn sums_offset(&self) -> usize {
        self.columns + self.groups * size_of::<f32>()
    }

    /// The parts of one row.
    ///
    /// # Panics
    /// When `bytes` is shorter than a row or not aligned to 4.
    pub(in crate::ops) fn split<'a>(&self, bytes: &'a [u8]) -> QuantizedRow<'a> {
        let (quants, rest) = bytes.split_at(self.columns);
        let (scales, rest) = rest.split_at(self.groups * size_of::<f32>());
        let sums = &rest[..2 * self.groups * size_of::<i16>()];
        QuantizedRow {
            quants: bytemuck::cast_slice(quants),
            scales: bytemuck::cast_slice(scales),
            sums: bytemuck::cast_slice(sums),
        }
    }

    /// As [`Self::split`], for writing.
    pub(in crate::ops) fn split_mut<'a>(&self, bytes: &'a mut [u8]) -> QuantizedRowMut<'a> {
        let (quants, rest) = bytes.split_at_mut(self.columns);
        let (scales, rest) = rest.split_at_mut(self.groups * size_of::<f32>());
        let (sums, padding) = rest.split_at_mut(2 * self.groups * size_of::<i16>());
        QuantizedRowMut {
            quants: bytemuck::cast_slice_mut(quants),
            scales: bytemuck::cast_slice_mut(scales),
            sums: bytemuck::cast_slice_mut(sums),
            padding,
        }
    }
}

/// One row of activations.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct QuantizedRow<'a> {
    pub(in crate::ops) quants: &'a [i8],
    pub(in crate::ops) scales: &'a [f32],
    pub(in crate::ops) sums: &'a [i16],
}

/// One row of activations, to be written.
#[derive(Debug)]
pub(in crate::ops) struct QuantizedRowMut<'a> {
    pub(in crate::ops) quants: &'a mut [i8],
    pub(in crate::ops) scales: &'a mut [f32],
    pub(in crate::ops) sums: &'a mut [i16],
    pub(in crate::ops) padding: &'a mut [u8],
}

/// Bytes of `rows` rows of `columns` activations each in the form that
/// [`quantize_activations`](super::quantize_activations) makes.
///
/// `None` unless `columns` is a multiple of 32, or when the bytes cannot be counted.
pub fn quantized_activation_bytes(rows: usize, columns: usize) -> Option<usize> {
    QuantizedLayout::new(columns)?.row_bytes.checked_mul(rows)
}

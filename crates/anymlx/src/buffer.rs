//! The typed buffer.

use std::{ffi::c_void, fmt, ops::Range, ptr::null_mut, sync::Arc};

use anymlx_hal::{HostAccess, Storage};
use bytemuck::Pod;

use crate::{DType, MlxDevice, MlxError, RawBuffer, ReadGuard, Result, WriteGuard};

/// A typed GPU buffer: dtype and shape over shared storage.
///
/// A handle is a reference to storage, a dtype, a shape, a byte offset and a logical byte length.
/// Clones and views are handles to the same bytes: nothing is copied, and nothing is registered
/// with the device again. Storage is freed when the last handle is gone and every submitted command
/// that uses it has completed.
#[derive(Clone)]
pub struct MlxBuffer {
    raw: RawBuffer,
    dtype: DType,
    shape: Arc<[usize]>,
    byte_offset: u64,
    byte_len: u64,
}

impl fmt::Debug for MlxBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MlxBuffer")
            .field("dtype", &self.dtype)
            .field("shape", &self.shape)
            .field("byte_offset", &self.byte_offset)
            .field("data_byte_len", &self.byte_len)
            .field("byte_len", &self.byte_len())
            .finish()
    }
}

/// Elements of a shape; `None` when they cannot be counted. The empty shape counts one.
pub(crate) fn count_elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent))
}

/// Bytes of a shape; `None` when they cannot be counted.
pub(crate) fn count_bytes(shape: &[usize], dtype: DType) -> Option<u64> {
    u64::try_from(count_elements(shape)?).ok()?.checked_mul(dtype.size_of() as u64)
}

impl MlxBuffer {
    pub(crate) fn new(raw: RawBuffer, dtype: DType, shape: Vec<usize>, byte_offset: u64, byte_len: u64) -> Self {
        Self { raw, dtype, shape: shape.into(), byte_offset, byte_len }
    }

    /// Wraps memory owned elsewhere, without a copy and without a residency guard.
    ///
    /// Who keeps the memory alive was said when `inner` was made: an owner that travels with it, or
    /// the caller, until the last handle is dropped and the last command has completed.
    ///
    /// The handle covers all of `inner`, whatever the shape says: operations check that the shape
    /// fits, and refuse a buffer whose bytes are too few.
    pub fn from_raw(inner: impl Into<RawBuffer>, dtype: DType, shape: Vec<usize>) -> Self {
        let raw = inner.into();
        let byte_len = raw.byte_len();
        Self::new(raw, dtype, shape, 0, byte_len)
    }

    /// A zero-copy view of `n_elements` from `byte_offset`, relative to this handle.
    ///
    /// Same dtype, shape `[n_elements]`. Views of views add their offsets. Kernels bound to the view
    /// see only its bytes, and need it to start at a multiple of the element size.
    ///
    /// # Panics
    /// When the range leaves this handle's logical bytes; [`Self::try_slice_view`] returns an error.
    #[track_caller]
    pub fn slice_view(&self, byte_offset: u64, n_elements: usize) -> Self {
        match self.try_slice_view(byte_offset, n_elements) {
            Ok(view) => view,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`Self::slice_view`], without the panic.
    ///
    /// # Errors
    /// `InvalidArgument` when the range leaves this handle's logical bytes.
    pub fn try_slice_view(&self, byte_offset: u64, n_elements: usize) -> Result<Self> {
        let bytes = count_bytes(&[n_elements], self.dtype);
        let fits = bytes.filter(|bytes| byte_offset.checked_add(*bytes).is_some_and(|end| end <= self.byte_len));
        let Some(bytes) = fits else {
            return Err(MlxError::invalid(
                "slice_view",
                format_args!(
                    "{n_elements} elements of {} at byte {byte_offset} leave the {} logical bytes of the buffer {:?}",
                    self.dtype, self.byte_len, self.shape
                ),
            ));
        };
        Ok(Self::new(self.raw.clone(), self.dtype, vec![n_elements], self.byte_offset + byte_offset, bytes))
    }

    /// A zero-copy view of bytes of this handle with another dtype and shape: a tensor inside a
    /// mapped file.
    ///
    /// # Errors
    /// `InvalidArgument` when the range leaves this handle's logical bytes, or the shape needs more.
    pub fn view_as(
        &self,
        byte_offset: u64,
        byte_len: usize,
        dtype: DType,
        shape: impl Into<Vec<usize>>,
    ) -> Result<Self> {
        const OPERATION: &str = "view_as";
        let shape = shape.into();
        crate::device::check_shape(OPERATION, byte_len, dtype, &shape)?;
        if byte_offset.checked_add(byte_len as u64).is_none_or(|end| end > self.byte_len) {
            let message = format_args!("{byte_len} bytes at {byte_offset} of a handle of {} bytes", self.byte_len);
            return Err(MlxError::invalid(OPERATION, message));
        }
        Ok(Self::new(self.raw.clone(), dtype, shape, self.byte_offset + byte_offset, byte_len as u64))
    }

    /// The same bytes with another shape; writes through either handle are seen by the other.
    ///
    /// # Errors
    /// `InvalidArgument` unless the element counts are equal.
    pub fn with_shape(&self, shape: impl Into<Vec<usize>>) -> Result<Self> {
        let shape = shape.into();
        let given = if shape.is_empty() { Some(self.element_count()) } else { count_elements(&shape) };
        if given != Some(self.element_count()) {
            let counted = given.map_or("too many".to_owned(), |count| count.to_string());
            return Err(MlxError::invalid(
                "with_shape",
                format_args!(
                    "{:?} has {} elements, the new shape {shape:?} has {counted}",
                    self.shape,
                    self.element_count()
                ),
            ));
        }
        Ok(Self { shape: shape.into(), ..self.clone() })
    }

    /// Elements: the product of the shape; for an empty shape, logical bytes over the element size.
    pub fn element_count(&self) -> usize {
        if self.shape.is_empty() {
            return usize::try_from(self.byte_len / self.dtype.size_of() as u64).unwrap_or(usize::MAX);
        }
        count_elements(&self.shape).unwrap_or(usize::MAX)
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Bytes of the whole allocation.
    pub fn byte_len(&self) -> usize {
        usize::try_from(self.raw.byte_len()).unwrap_or(usize::MAX)
    }

    /// Logical bytes of this handle: what was asked for when it was made.
    pub fn data_byte_len(&self) -> usize {
        usize::try_from(self.byte_len).unwrap_or(usize::MAX)
    }

    /// First byte of this handle within the allocation; 0 for a fresh buffer.
    pub fn byte_offset(&self) -> u64 {
        self.byte_offset
    }

    /// Base of the allocation as the CPU sees it; add [`Self::byte_offset`] for this handle.
    ///
    /// No copy where memory is unified. On other devices this is the host mirror as it stands:
    /// [`Self::as_slice`] and [`Self::read`] bring it up to date. Null for storage that the host
    /// cannot see.
    pub fn contents_ptr(&self) -> *mut c_void {
        self.storage().host_base().map_or(null_mut(), |base| base.as_ptr().cast())
    }

    /// The memory, for foreign code.
    pub fn raw(&self) -> &RawBuffer {
        &self.raw
    }

    /// The device that owns the memory.
    pub(crate) fn storage(&self) -> &Storage {
        &self.raw.storage
    }

    /// True when the buffer belongs to `device`.
    pub fn is_on(&self, device: &MlxDevice) -> bool {
        self.raw.context().same_device(device.context())
    }

    /// True when the host may not write the buffer because it is backed by a file.
    pub fn is_read_only(&self) -> bool {
        self.storage().read_only()
    }

    /// True when both handles belong to the same allocation.
    pub fn shares_storage_with(&self, other: &MlxBuffer) -> bool {
        self.storage().same_storage(other.storage())
    }

    /// Copies these bytes, and those that share their pages, from the pages of a mapped file into huge pages, where the
    /// device gains by that: contents and addresses stay, work under way is not disturbed, and every handle of the
    /// storage sees the change. Returns the bytes copied: 0 where there is nothing to do, as on every device but the CPU
    /// of a Linux system.
    ///
    /// The copies are memory of the process's own, as large as what was moved, until the storage is dropped.
    ///
    /// # Errors
    /// `IoError` when the system refuses; what was not moved stays where it was.
    pub fn move_to_huge_pages(&self) -> Result<u64> {
        Ok(self.storage().move_to_huge_pages(&self.range())?)
    }

    /// This handle's bytes within the allocation.
    pub(crate) fn range(&self) -> Range<u64> {
        self.byte_offset..self.byte_offset + self.byte_len
    }

    /// Elements of `T` in the logical bytes.
    fn typed_len<T>(&self, operation: &'static str) -> Result<usize> {
        let size = size_of::<T>();
        if size == 0 {
            return Err(MlxError::invalid(operation, "the element type has no bytes"));
        }
        let bytes = self.data_byte_len();
        if !bytes.is_multiple_of(size) {
            let message = format_args!("{bytes} bytes are not a whole number of elements of {size} bytes");
            return Err(MlxError::invalid(operation, message));
        }
        Ok(bytes / size)
    }

    /// As [`Self::typed_len`], for a slice in place. Comes before everything that changes something.
    fn slice_len<T>(&self, operation: &'static str) -> Result<usize> {
        let len = self.typed_len::<T>(operation)?;
        let start = self.contents_ptr().cast::<u8>().wrapping_add(self.byte_offset as usize);
        if start.cast::<T>().is_aligned() {
            return Ok(len);
        }
        let message = format_args!(
            "byte {} of the allocation, at {start:p}, is not aligned to {}",
            self.byte_offset,
            align_of::<T>()
        );
        Err(MlxError::invalid(operation, message))
    }

    /// Exactly this handle's logical bytes, as the host sees them now.
    ///
    /// The borrow keeps this handle from being changed, but not another handle to the same bytes,
    /// nor work submitted while the slice lives: programs that share handles use [`Self::read`],
    /// which holds the range.
    ///
    /// # Errors
    /// `InvalidArgument` for a `T` of no bytes, a length that is not a multiple of its size, or
    /// misalignment; `InFlight` while a submitted command that writes the storage has not completed;
    /// `Locked`, `Poisoned`, `NotHostVisible`.
    pub fn as_slice<T: Pod>(&self) -> Result<&[T]> {
        const OPERATION: &str = "as_slice";
        let len = self.slice_len::<T>(OPERATION)?;
        let start = self.storage().peek_host(OPERATION, self.range(), HostAccess::Read)?.as_ptr();
        // SAFETY: inside the allocation, aligned, any bit pattern is a `T`, and no unfinished
        // command writes the storage; the borrow of the handle keeps the storage alive.
        Ok(unsafe { std::slice::from_raw_parts(start.cast(), len) })
    }

    /// As [`Self::as_slice`], for writing.
    ///
    /// # Errors
    /// As [`Self::as_slice`], and `ReadOnly` for file-backed storage, `InFlight` while any submitted
    /// command uses the storage.
    pub fn as_mut_slice<T: Pod>(&mut self) -> Result<&mut [T]> {
        const OPERATION: &str = "as_mut_slice";
        let len = self.slice_len::<T>(OPERATION)?;
        let start = self.storage().peek_host(OPERATION, self.range(), HostAccess::Write)?.as_ptr();
        // SAFETY: as in `as_slice`; no unfinished command uses the storage at all, and the handle is
        // borrowed exclusively.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.cast(), len) })
    }

    /// Holds this handle's bytes for reading: writing guards and submissions that write them are
    /// refused until the guard is dropped.
    ///
    /// # Errors
    /// As [`Self::as_slice`].
    pub fn read<T: Pod>(&self) -> Result<ReadGuard<[T]>> {
        const OPERATION: &str = "read";
        let len = self.slice_len::<T>(OPERATION)?;
        let lock = self.storage().lock_host(OPERATION, self.range(), HostAccess::Read)?;
        Ok(ReadGuard::new(lock, len))
    }

    /// Holds this handle's bytes for writing: other guards and submissions that use them are
    /// refused until the guard is dropped. Taking the guard counts as writing all of its bytes.
    ///
    /// # Errors
    /// As [`Self::as_mut_slice`].
    pub fn write<T: Pod>(&self) -> Result<WriteGuard<[T]>> {
        const OPERATION: &str = "write";
        let len = self.slice_len::<T>(OPERATION)?;
        let lock = self.storage().lock_host(OPERATION, self.range(), HostAccess::Write)?;
        Ok(WriteGuard::new(lock, len))
    }

    /// Copies this handle's bytes out, whatever the storage mode.
    ///
    /// # Errors
    /// `InvalidArgument` when the length is not a multiple of the size of `T`; `InFlight`, `Locked`,
    /// `Poisoned`.
    pub fn to_vec<T: Pod>(&self) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.typed_len::<T>("to_vec")?];
        self.storage().read_bytes(self.byte_offset, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// Copies `values` in from this handle's first byte, whatever the storage mode.
    ///
    /// # Errors
    /// `InvalidArgument` when `values` has more bytes than the handle; `ReadOnly`, `InFlight`, `Locked`.
    pub fn copy_from_slice<T: Pod>(&self, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.len() as u64 > self.byte_len {
            let message =
                format_args!("{} bytes given, the buffer {:?} has {}", bytes.len(), self.shape, self.byte_len);
            return Err(MlxError::invalid("copy_from_slice", message));
        }
        Ok(self.storage().write_bytes(self.byte_offset, bytes)?)
    }
}

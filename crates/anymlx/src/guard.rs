//! Host access that holds its range.

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use anymlx_hal::HostLock;
use bytemuck::Pod;

/// Bytes held for reading; see [`crate::MlxBuffer::read`].
#[derive(Debug)]
pub struct ReadGuard<T: ?Sized> {
    lock: HostLock,
    len: usize,
    elements: PhantomData<Box<T>>,
}

/// Bytes held for writing; see [`crate::MlxBuffer::write`].
#[derive(Debug)]
pub struct WriteGuard<T: ?Sized> {
    lock: HostLock,
    len: usize,
    elements: PhantomData<Box<T>>,
}

impl<T: Pod> ReadGuard<[T]> {
    /// `lock` is aligned for `T` and holds `len` elements.
    pub(crate) fn new(lock: HostLock, len: usize) -> Self {
        debug_assert_eq!(lock.byte_len(), len * size_of::<T>());
        Self { lock, len, elements: PhantomData }
    }
}

impl<T: Pod> WriteGuard<[T]> {
    /// `lock` is aligned for `T` and holds `len` elements.
    pub(crate) fn new(lock: HostLock, len: usize) -> Self {
        debug_assert_eq!(lock.byte_len(), len * size_of::<T>());
        Self { lock, len, elements: PhantomData }
    }
}

impl<T: Pod> Deref for ReadGuard<[T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the lock keeps writers away and the storage alive; alignment and length were
        // checked when the guard was made, and any bit pattern is a `T`.
        unsafe { std::slice::from_raw_parts(self.lock.start().as_ptr().cast(), self.len) }
    }
}

impl<T: Pod> Deref for WriteGuard<[T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: as for `ReadGuard`; the lock is exclusive.
        unsafe { std::slice::from_raw_parts(self.lock.start().as_ptr().cast(), self.len) }
    }
}

impl<T: Pod> DerefMut for WriteGuard<[T]> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lock.start().as_ptr().cast(), self.len) }
    }
}

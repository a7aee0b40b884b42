//! Where kernels leave their faults: four words for each submission.

use std::sync::{Arc, Mutex};

use super::{Api, Argument, lock};
use crate::{Access, StorageMode};

/// Words of a record: code and three numbers.
const WORDS: usize = 4;
/// Bytes from record to record: any GPU takes a buffer at a multiple of this.
const STRIDE: u64 = 256;
/// Records that are made at a time.
const CHUNK: u64 = 64;

/// The records of a device.
#[derive(Debug)]
pub(super) struct Faults<A: Api> {
    free: Arc<Mutex<Vec<Argument<A>>>>,
}

impl<A: Api> Default for Faults<A> {
    fn default() -> Self {
        Self { free: Arc::default() }
    }
}

/// The record of one submission; free again when dropped, which is after the submission has ended.
#[derive(Debug)]
pub(super) struct FaultRecord<A: Api> {
    argument: Option<Argument<A>>,
    free: Arc<Mutex<Vec<Argument<A>>>>,
}

impl<A: Api> Faults<A> {
    /// A record of zeros; `None` when there is no memory for one.
    pub(super) fn take(&self, api: &A) -> Option<FaultRecord<A>> {
        let mut free = lock(&self.free);
        if free.is_empty() {
            let buffer = api.new_buffer((CHUNK * STRIDE) as usize, StorageMode::Shared)?;
            free.extend((0..CHUNK).rev().map(|index| Argument {
                buffer: buffer.clone(),
                offset: index * STRIDE,
                byte_len: (WORDS * size_of::<u32>()) as u64,
                access: Access::ReadWrite,
            }));
        }
        let argument = free.pop()?;
        let record = FaultRecord { argument: Some(argument), free: Arc::clone(&self.free) };
        let words = record.words(api)?;
        // SAFETY: the CPU may write to a shared MTLBuffer what no command in flight uses: the submission that had the
        // record before has ended.
        unsafe { words.write([0; WORDS]) };
        Some(record)
    }
}

impl<A: Api> FaultRecord<A> {
    pub(super) fn argument(&self) -> &Argument<A> {
        self.argument.as_ref().expect("taken only when dropped")
    }

    fn words(&self, api: &A) -> Option<*mut [u32; WORDS]> {
        let argument = self.argument();
        let start = api.contents(&argument.buffer)?;
        // SAFETY: the record is inside the buffer; `contents` of an MTLBuffer begins with a page.
        Some(unsafe { start.add(argument.offset as usize) }.as_ptr().cast())
    }

    /// What the submission left; `None` without a fault. The submission has ended.
    pub(super) fn read(&self, api: &A) -> Option<[u32; WORDS]> {
        let words = self.words(api)?;
        // SAFETY: the GPU's writes to a shared buffer are visible once the command buffer has completed.
        let record = unsafe { words.read_volatile() };
        (record[0] != 0).then_some(record)
    }
}

impl<A: Api> Drop for FaultRecord<A> {
    fn drop(&mut self) {
        lock(&self.free).extend(self.argument.take());
    }
}

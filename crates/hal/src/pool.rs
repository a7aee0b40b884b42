//! Reuse of allocations by size class.

use std::collections::BTreeMap;

use crate::{Context, HalError, Residency, Result, Storage, StorageMode};

/// The size that is allocated for `byte_len` bytes: at most one eighth more.
///
/// Classes are 8 steps per power of two: the next multiple of a sixteenth of the next power of two.
/// `None` when the class does not fit 64 bits.
pub fn size_class(byte_len: u64) -> Option<u64> {
    let step = match byte_len.checked_ilog2() {
        None | Some(0..=3) => 1,
        Some(bits) => 1_u64 << (bits - 3),
    };
    byte_len.checked_next_multiple_of(step)
}

/// What a pool holds and has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Blocks that wait for reuse.
    pub free_blocks: usize,
    /// Their bytes.
    pub free_bytes: u64,
    /// Blocks handed out.
    pub in_use_blocks: usize,
    /// Their bytes.
    pub in_use_bytes: u64,
    /// Requests served from a waiting block.
    pub hits: u64,
    /// Requests that allocated.
    pub misses: u64,
    /// Waiting blocks freed to make room or by `trim`.
    pub evictions: u64,
}

#[derive(Debug)]
struct Free {
    storage: Storage,
    /// Larger is more recent.
    released: u64,
}

/// How a block comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// By [`BlockPool::release`] or [`BlockPool::reset`].
    UntilReleased,
    /// By itself, with its last handle.
    UntilDropped,
}

#[derive(Debug)]
struct InUse {
    storage: Storage,
    lease: Lease,
}

impl InUse {
    fn handles_outside(&self) -> usize {
        self.storage.handle_count() - 1
    }

    fn has_returned(&self) -> bool {
        self.lease == Lease::UntilDropped && self.handles_outside() == 0
    }
}

/// Blocks of one device.
///
/// A block is handed out again only when no handle to it exists and no unfinished submission uses it.
#[derive(Debug, Default)]
pub struct BlockPool {
    context: Option<Context>,
    free: BTreeMap<u64, Vec<Free>>,
    in_use: Vec<InUse>,
    limit: Option<u64>,
    clock: u64,
    stats: PoolStats,
}

impl BlockPool {
    /// An empty pool. It belongs to the device of its first allocation.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool that holds at most `bytes` in all.
    pub fn with_limit(bytes: u64) -> Self {
        Self { limit: Some(bytes), ..Self::default() }
    }

    /// Counters.
    pub fn stats(&self) -> PoolStats {
        let mut stats = self.stats;
        for returned in self.in_use.iter().filter(|block| block.has_returned()) {
            stats.in_use_blocks -= 1;
            stats.in_use_bytes -= returned.storage.byte_len();
            stats.free_blocks += 1;
            stats.free_bytes += returned.storage.byte_len();
        }
        stats
    }

    /// Takes back what has come back by itself.
    fn collect(&mut self) {
        for at in (0..self.in_use.len()).rev() {
            if self.in_use[at].has_returned() {
                self.take_back(at);
            }
        }
    }

    fn check_device(&self, operation: &'static str, context: &Context) -> Result<()> {
        match &self.context {
            Some(own) if !own.same_device(context) => {
                let message = "the pool belongs to another device; use one pool per device".into();
                Err(HalError::InvalidUse { operation, message })
            }
            _ => Ok(()),
        }
    }

    /// A block of at least `byte_len` bytes; contents are whatever the last user left.
    ///
    /// # Errors
    /// `InvalidUse` for 0 bytes or another device than the first; `OutOfMemory` when the limit or
    /// the device refuses, after every waiting block was given up.
    pub fn allocate(&mut self, context: &Context, byte_len: u64, lease: Lease) -> Result<Storage> {
        const OPERATION: &str = "pool allocate";
        self.check_device(OPERATION, context)?;
        if byte_len == 0 {
            return Err(HalError::InvalidUse { operation: OPERATION, message: "0 bytes asked for, needed 1".into() });
        }
        self.context.get_or_insert_with(|| context.clone());
        self.collect();
        let out_of_range = HalError::OutOfMemory {
            asked: byte_len,
            in_use: self.stats.in_use_bytes,
            limit: self.limit.unwrap_or(u64::MAX),
            reason: "larger than the address space".into(),
        };
        let class = size_class(byte_len).ok_or(out_of_range)?;
        if let Some(storage) = self.reuse(class) {
            self.stats.hits += 1;
            return Ok(self.hand_out(storage, lease));
        }
        self.make_room(class)?;
        let storage = match context.allocate(class, StorageMode::Shared, Residency::Stay) {
            Err(HalError::OutOfMemory { .. }) if self.stats.free_blocks > 0 => {
                self.trim();
                context.allocate(class, StorageMode::Shared, Residency::Stay)?
            }
            result => result?,
        };
        self.stats.misses += 1;
        Ok(self.hand_out(storage, lease))
    }

    fn hand_out(&mut self, storage: Storage, lease: Lease) -> Storage {
        // A failure of the last user says nothing about the next one's bytes.
        storage.forget_failures();
        self.stats.in_use_blocks += 1;
        self.stats.in_use_bytes += storage.byte_len();
        self.in_use.push(InUse { storage: storage.clone(), lease });
        storage
    }

    /// The most recently released idle block of the class.
    fn reuse(&mut self, class: u64) -> Option<Storage> {
        let blocks = self.free.get_mut(&class)?;
        let at = blocks.iter().rposition(|block| block.storage.is_idle())?;
        let block = blocks.remove(at);
        if blocks.is_empty() {
            self.free.remove(&class);
        }
        self.stats.free_blocks -= 1;
        self.stats.free_bytes -= class;
        Some(block.storage)
    }

    /// Gives up the least recently released blocks until `class` more bytes fit the limit.
    fn make_room(&mut self, class: u64) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        while self.stats.in_use_bytes.saturating_add(self.stats.free_bytes).saturating_add(class) > limit {
            if !self.evict_oldest() {
                let in_use = self.stats.in_use_bytes;
                let reason = "the pool's limit".into();
                return Err(HalError::OutOfMemory { asked: class, in_use, limit, reason });
            }
        }
        Ok(())
    }

    fn evict_oldest(&mut self) -> bool {
        let oldest = self.free.iter().filter_map(|(&class, blocks)| Some((blocks.first()?.released, class))).min();
        let Some((_, class)) = oldest else { return false };
        let Some(blocks) = self.free.get_mut(&class) else { return false };
        blocks.remove(0);
        if blocks.is_empty() {
            self.free.remove(&class);
        }
        self.stats.free_blocks -= 1;
        self.stats.free_bytes -= class;
        self.stats.evictions += 1;
        true
    }

    /// Takes back a block. `handle` must be the only handle outside the pool.
    ///
    /// # Errors
    /// `InvalidUse` when the block is not one that this pool has handed out, or when other handles,
    /// recorded commands or graphs still use it; the block then stays in use.
    pub fn release(&mut self, handle: Storage) -> Result<()> {
        const OPERATION: &str = "pool release";
        let Some(at) = self.in_use.iter().position(|block| block.storage.same_storage(&handle)) else {
            let message = "the buffer was not handed out by this pool".into();
            return Err(HalError::InvalidUse { operation: OPERATION, message });
        };
        drop(handle);
        self.check_unshared(OPERATION, at)?;
        self.take_back(at);
        Ok(())
    }

    fn check_unshared(&self, operation: &'static str, at: usize) -> Result<()> {
        let others = self.in_use[at].handles_outside();
        if others == 0 {
            return Ok(());
        }
        let message = format!(
            "{others} more handles (clones, views, recorded commands or graphs) still use the buffer; drop them first"
        );
        Err(HalError::InvalidUse { operation, message })
    }

    fn take_back(&mut self, at: usize) {
        let InUse { storage, .. } = self.in_use.swap_remove(at);
        let class = storage.byte_len();
        self.clock += 1;
        self.stats.in_use_blocks -= 1;
        self.stats.in_use_bytes -= class;
        self.stats.free_blocks += 1;
        self.stats.free_bytes += class;
        self.free.entry(class).or_default().push(Free { storage, released: self.clock });
    }

    /// Takes back every block whose handles are gone.
    ///
    /// # Errors
    /// `InvalidUse` when any block has a live handle; nothing is taken back then.
    pub fn reset(&mut self) -> Result<()> {
        (0..self.in_use.len()).try_for_each(|at| self.check_unshared("pool reset", at))?;
        while !self.in_use.is_empty() {
            self.take_back(self.in_use.len() - 1);
        }
        Ok(())
    }

    /// Frees every waiting block.
    pub fn trim(&mut self) {
        self.collect();
        while self.evict_oldest() {}
    }

    /// Frees every waiting block and forgets those in use; they are freed with their last handle.
    pub fn clear(&mut self) {
        self.free.clear();
        self.in_use.clear();
        self.stats.free_blocks = 0;
        self.stats.free_bytes = 0;
        self.stats.in_use_blocks = 0;
        self.stats.in_use_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for byte_len in (1..70_000_u64).chain([1 << 40, (1 << 40) + 1, u64::MAX / 2]) {
            let class = size_class(byte_len).expect("fits");
            assert!(class >= byte_len && class - byte_len <= byte_len / 8, "{byte_len} -> {class}");
            assert_eq!(size_class(class), Some(class));
        }
        assert_eq!(size_class(u64::MAX), None);
    }
}

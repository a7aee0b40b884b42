//! The synchronisation primitives of this crate: the standard library's, or loom's under
//! `--cfg loom`, so that the model checker runs the very code that ships.

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::{JoinHandle, current, yield_now},
};
#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::{JoinHandle, current, yield_now},
};

pub(crate) use std::sync::Arc;

/// Locks a mutex whose data stays consistent across panics (no user code runs under our locks).
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Starts a named thread.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    #[cfg(loom)]
    {
        let _ = name;
        Ok(loom::thread::spawn(body))
    }
    #[cfg(not(loom))]
    {
        std::thread::Builder::new().name(name.to_owned()).spawn(body)
    }
}

/// Spin iterations before a waiting thread gives up its processor, and yields before it sleeps.
///
/// About 20 microseconds of spinning covers the gaps between kernels of one token; what waits
/// longer is idle and must cost nothing. The model checker takes every wait to the end.
#[cfg(not(loom))]
pub(crate) const SPINS: u32 = 4000;
#[cfg(loom)]
pub(crate) const SPINS: u32 = 0;

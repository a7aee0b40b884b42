//! A flag that is set once and waited for.

use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, lock};

/// Holds a value from `set` on.
#[derive(Debug)]
pub(crate) struct Latch<T> {
    done: AtomicBool,
    value: Mutex<Option<T>>,
    changed: Condvar,
}

impl<T: Clone> Latch<T> {
    pub(crate) fn new() -> Self {
        Self { done: AtomicBool::new(false), value: Mutex::new(None), changed: Condvar::new() }
    }

    /// Sets the value and wakes all who wait.
    pub(crate) fn set(&self, value: T) {
        {
            let mut slot = lock(&self.value);
            *slot = Some(value);
            // Under the lock: whoever has waited finds it set.
            self.done.store(true, Ordering::Release);
        }
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Blocks until the value is there.
    pub(crate) fn wait(&self) -> T {
        let mut value = lock(&self.value);
        loop {
            if let Some(value) = value.as_ref() {
                return value.clone();
            }
            value = self.changed.wait(value).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

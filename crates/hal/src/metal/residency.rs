//! The device's `MTLResidencySet`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Api, shared::Shared};

/// A set, attached to the queue for as long as it lives.
#[derive(Debug)]
pub(super) struct Residency<A: Api> {
    set: A::ResidencySet,
    requested: AtomicBool,
    shared: Arc<Shared<A>>,
}

impl<A: Api> Residency<A> {
    /// `None` where the system has no such sets or refuses: allocations are then resident as the system sees fit.
    pub(super) fn new(shared: &Arc<Shared<A>>) -> Option<Self> {
        if !shared.facts.residency_sets {
            tracing::info!("no residency sets: they need macOS 15");
            return None;
        }
        let api = &shared.api;
        match api.autorelease(|| api.new_residency_set()) {
            Ok(set) => {
                api.attach(&set);
                Some(Self { set, requested: AtomicBool::new(false), shared: Arc::clone(shared) })
            }
            Err(reason) => {
                tracing::warn!(%reason, "no residency set could be made; work goes on without one");
                None
            }
        }
    }

    pub(super) fn add(&self, buffer: &A::Buffer) {
        self.shared.api.add_allocation(&self.set, buffer);
    }

    pub(super) fn remove(&self, buffer: &A::Buffer) {
        self.shared.api.remove_allocation(&self.set, buffer);
    }

    pub(super) fn commit(&self) {
        let api = &self.shared.api;
        api.autorelease(|| api.commit_residency(&self.set));
        // Later commits change a set that is resident already.
        if !self.requested.swap(true, Ordering::Relaxed) {
            api.request_residency(&self.set);
        }
    }
}

impl<A: Api> Drop for Residency<A> {
    fn drop(&mut self) {
        let api = &self.shared.api;
        if self.requested.load(Ordering::Relaxed) {
            api.end_residency(&self.set);
        }
        api.detach(&self.set);
    }
}

//! What is the user's own (kernels, and what they hold) is dropped where the library holds no lock
//! and waits for nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anymlx_hal::{
    Access, Binding, Context, CpuKernel, Graph, HalError, HostAccess, Kernel, KernelSource, Launch, Residency, Storage,
    StorageMode, any,
    cpu::{self, CpuOptions},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn open() -> Context {
    let options = CpuOptions { threads: Some(2), ..CpuOptions::default() };
    Context::new(any::Device::Cpu(cpu::Device::open(&options).expect("the processor opens")))
}

fn storage(context: &Context) -> Storage {
    context.allocate(64, StorageMode::Shared, Residency::Join).expect("allocates")
}

fn whole(storage: &Storage, access: Access) -> Binding<'_> {
    Binding { storage, offset: 0, byte_len: storage.byte_len(), access }
}

/// A kernel that holds `value` as long as it lives.
fn holding<T: Send + Sync + 'static>(context: &Context, value: T) -> Kernel {
    let cpu = CpuKernel::whole(move |_| {
        std::hint::black_box(&value);
        Ok(())
    });
    context.compile(&KernelSource { name: "holding", gpu: "", cpu: Some(cpu) }).expect("compiles")
}

const ONCE: Launch = Launch { groups: [1, 1, 1], threads_per_group: 32, items: 1, items_per_chunk: 1 };

/// Fails when `body` dead-locks.
fn within_time(body: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let body = thread::spawn(move || {
        body();
        done.send(()).expect("the test waits");
    });
    match finished.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("dead-locked"),
        _ => body.join().expect("the test's own assertions hold"),
    }
}

#[test]
fn a_refused_commit_may_drop_the_last_handle_of_a_storage() {
    within_time(|| {
        let context = open();
        let (held, captured) = (storage(&context), storage(&context));
        let lock = held.lock_host("test", 0..64, HostAccess::Write).expect("free");
        let mut recorder = context.recorder("refused").expect("records");
        let kernel = holding(&context, captured);
        recorder.dispatch(&kernel, &[whole(&held, Access::Read)], &[], ONCE, "holding").expect("records");
        drop(kernel);
        let refused = recorder.commit();
        assert!(matches!(refused, Err(HalError::Locked { .. })), "{refused:?}");
        drop(lock);
        let stats = context.residency_stats();
        assert_eq!((stats.adds, stats.removes), (2, 1), "the captured storage is gone");
    });
}

#[test]
fn a_kernel_may_hold_a_graph_and_its_device() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    within_time(|| {
        let dropped = Arc::new(AtomicBool::new(false));
        let context = open();
        let empty: Graph = context.recorder("empty").and_then(|mut recorder| recorder.finish()).expect("prepares");
        context.replay(&empty).expect("replays").wait().expect("succeeds");
        let kernel = holding(&context, (Dropped(Arc::clone(&dropped)), empty, context.clone()));
        let mut recorder = context.recorder("last").expect("records");
        recorder.dispatch(&kernel, &[], &[], ONCE, "holding").expect("records");
        drop(kernel);
        let submission = recorder.commit().expect("commits");
        drop((recorder, context));
        drop(submission);
        let start = std::time::Instant::now();
        while !dropped.load(Ordering::SeqCst) {
            assert!(start.elapsed() < PATIENCE, "the kernel was never dropped");
            thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn kernels_and_graphs_belong_to_one_device_even_after_its_end() {
    for _ in 0..50 {
        let (kernel, graph) = {
            let first = open();
            (holding(&first, ()), first.recorder("empty").and_then(|mut recorder| recorder.finish()).expect("prepares"))
        };
        // The new device may well be where the old one was.
        let second = open();
        let mut recorder = second.recorder("second").expect("records");
        let refused = recorder.dispatch(&kernel, &[], &[], ONCE, "holding");
        assert!(matches!(refused, Err(HalError::InvalidUse { .. })), "{refused:?}");
        let refused = second.replay(&graph);
        assert!(matches!(refused, Err(HalError::InvalidUse { .. })), "{refused:?}");
    }
}

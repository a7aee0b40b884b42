//! What is dropped when.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anymlx::{CpuKernel, DType, MlxBuffer, MlxDevice, Owner, RawBuffer, read_write, write};

use crate::{
    subject::Subject,
    support::{Gate, eventually, kernel, submit, u32s, values},
};

/// Counts its drops.
#[derive(Debug, Clone, Default)]
struct Drops(Arc<AtomicUsize>);

impl Drops {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn sentinel(&self) -> Sentinel {
        Sentinel(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Sentinel(Arc<AtomicUsize>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn owned(device: &MlxDevice, mut memory: Vec<u32>, keep: impl Owner) -> MlxBuffer {
    let (start, len) = (memory.as_mut_ptr(), memory.len());
    let owner: Box<dyn Owner> = Box::new((memory, keep));
    // SAFETY: the owner keeps the vector, whose memory does not move, and nobody else uses it.
    let raw = unsafe { RawBuffer::from_host(device, start.cast(), len * 4, Some(owner)) };
    MlxBuffer::from_raw(raw.expect("unified memory"), DType::U32, vec![len])
}

pub fn an_owner_is_dropped_once_after_the_last_use(subject: &Subject) {
    if !subject.is_unified() {
        return eprintln!("skipped: host memory is not used in place by this device");
    }
    let device = &subject.device;
    let drops = Drops::default();
    let buffer = owned(device, vec![1; 8], drops.sentinel());
    let (clone, view) = (buffer.clone(), buffer.slice_view(4, 2).with_shape([2, 1]).unwrap());
    let gate = Gate::new(device);
    let submission = gate.enter(device, &[read_write(&view)]);
    drop((buffer, clone, view));
    assert_eq!(drops.count(), 0, "a command in flight uses the memory");
    gate.open();
    submission.wait().unwrap();
    eventually("the owner goes", || drops.count() > 0);
    device.synchronize();
    assert_eq!(drops.count(), 1);

    let unused = owned(device, vec![1; 8], drops.sentinel());
    let encoder = device.command_encoder().unwrap();
    drop(unused.clone());
    assert_eq!(drops.count(), 1);
    drop((unused, encoder));
    assert_eq!(drops.count(), 2, "without work in flight it goes with the last handle");
}

pub fn storage_dropped_in_flight_is_freed_afterwards(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1; 256]);
    let gate = Gate::new(device);
    let submission = gate.enter(device, &[write(&buffer.slice_view(0, 1))]);
    drop(buffer);
    assert_eq!(device.info().memory_in_use, 1024);
    gate.open();
    submission.wait().unwrap();
    assert_eq!(device.info().memory_in_use, 0, "freed without another commit");
}

/// The device then ends on the thread that ran the kernel, which cannot wait for itself.
pub fn a_kernel_may_hold_the_last_handle_of_its_device(subject: &Subject) {
    if subject.is_gpu() {
        return eprintln!("skipped: a GPU's kernel holds nothing of the host's");
    }
    let device = subject.another();
    let drops = Drops::default();
    let (buffer, sentinel) = (u32s(&device, &[1; 4]), drops.sentinel());
    let gate = Gate::new(&device);
    let holding = kernel(
        &device,
        "holding",
        CpuKernel::whole(move |_| {
            assert!(buffer.byte_len() == 16 && Arc::strong_count(&sentinel.0) > 0);
            Ok(())
        }),
    );
    gate.enter(&device, &[]);
    submit(&device, &holding, &[], 1);
    submit(&device, gate.kernel(0), &[], 1);
    drop((device, holding));
    gate.open();
    drop(gate);
    eventually("the kernel and its device go", || drops.count() == 1);
}

pub fn an_owner_may_hold_a_buffer_of_its_device(subject: &Subject) {
    if !subject.is_unified() {
        return eprintln!("skipped: host memory is not used in place by this device");
    }
    let device = &subject.device;
    let drops = Drops::default();
    let inner = u32s(device, &[1; 4]);
    let outer = owned(device, vec![1; 8], (inner, drops.sentinel()));
    anymlx::MlxBufferPool::new().register_existing(device, &outer).unwrap();
    let gate = Gate::new(device);
    let submission = gate.enter(device, &[write(&outer)]);
    drop(outer);
    gate.open();
    submission.wait().unwrap();
    let mut encoder = device.command_encoder().unwrap();
    encoder.fill_bytes(&u32s(device, &[1; 4]), 0).unwrap();
    encoder.commit_and_wait().unwrap();
    assert_eq!((drops.count(), device.info().memory_in_use), (1, 0));
    let stats = device.residency_stats();
    assert_eq!(stats.adds, stats.removes);
}

pub fn waiting_gives_back_what_kernels_hold(subject: &Subject) {
    if subject.is_gpu() {
        return eprintln!("skipped: a GPU's kernel holds nothing of the host's");
    }
    let device = subject.another();
    let drops = Drops::default();
    let sentinel = drops.sentinel();
    let holding = kernel(
        &device,
        "holding",
        CpuKernel::whole(move |arguments| {
            arguments.output::<u32>(0)[0] = Arc::strong_count(&sentinel.0) as u32;
            Ok(())
        }),
    );
    let buffer = u32s(&device, &[0]);
    let submission = submit(&device, &holding, &[write(&buffer)], 1);
    submission.wait().unwrap();
    drop((holding, device));
    assert_eq!(values(&buffer), [2]);
    assert_eq!(drops.count(), 1, "the registry had the last handle");
}

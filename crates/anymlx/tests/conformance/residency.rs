//! Staging and committing the residency set.

use anymlx::{DType, MlxBuffer, MlxBufferPool, MlxDevice, RawBuffer, ResidencyStats, write};

use crate::{
    subject::Subject,
    support::{Gate, u32s},
};

fn stats(device: &MlxDevice) -> (u64, u64, u64) {
    let ResidencyStats { adds, removes, commits, .. } = device.residency_stats();
    (adds, removes, commits)
}

fn commit(device: &MlxDevice) {
    device.command_encoder().unwrap().commit_and_wait().unwrap();
}

pub fn a_batch_costs_one_commit(subject: &Subject) {
    let device = &subject.device;
    commit(device);
    assert_eq!(stats(device), (0, 0, 0), "nothing staged, nothing committed");
    let buffers: Vec<_> = (1..=100).map(|k| device.alloc_buffer(k, DType::U8, vec![]).unwrap()).collect();
    assert_eq!(stats(device), (100, 0, 0));
    commit(device);
    assert_eq!(stats(device), (100, 0, 1));
    commit(device);
    assert_eq!(stats(device), (100, 0, 1));
    drop(buffers);
    assert_eq!(stats(device), (100, 100, 1));
    commit(device);
    commit(device);
    assert_eq!(stats(device), (100, 100, 2));
}

pub fn the_last_handle_removes_once(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1; 8]);
    let handles = [
        buffer.clone(),
        buffer.slice_view(4, 2),
        buffer.slice_view(4, 4).slice_view(4, 1),
        buffer.with_shape([2, 4]).unwrap(),
        MlxBuffer::from_raw(buffer.raw().clone(), DType::U8, vec![32]),
    ];
    assert_eq!(stats(device), (1, 0, 0), "handles never add");
    drop(buffer);
    commit(device);
    for handle in handles {
        assert_eq!(stats(device), (1, 0, 1));
        drop(handle);
    }
    assert_eq!(stats(device), (1, 1, 1));
    commit(device);
    assert_eq!(stats(device), (1, 1, 2));
}

pub fn a_buffer_dropped_in_flight_leaves_when_the_work_is_done(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1; 8]);
    let gate = Gate::new(device);
    let submission = gate.enter(device, &[write(&buffer)]);
    assert_eq!(stats(device), (1, 0, 1));
    drop(buffer);
    for _ in 0..3 {
        device.command_encoder().unwrap().commit().unwrap();
        assert_eq!(stats(device), (1, 1, 1), "no commit while the work uses the buffer");
    }
    gate.open();
    submission.wait().unwrap();
    commit(device);
    assert_eq!(stats(device), (1, 1, 2));
    commit(device);
    assert_eq!(stats(device), (1, 1, 2));
}

pub fn replays_commit_what_is_staged(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1; 8]);
    let graph = device.record(|encoder| encoder.fill_bytes(&buffer, 1)).unwrap();
    assert_eq!(stats(device), (1, 0, 0), "recording commits nothing");
    graph.replay().unwrap().wait().unwrap();
    assert_eq!(stats(device), (1, 0, 1));
    graph.replay().unwrap().wait().unwrap();
    assert_eq!(stats(device), (1, 0, 1));
}

pub fn scratch_and_foreign_memory_never_join(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::new();
    let mut encoder = device.command_encoder().unwrap();
    let scratch = encoder.scratch(&mut pool, DType::U32, &[33]).unwrap();
    let pooled = pool.alloc(device, 100, DType::U8, vec![]).unwrap();
    encoder.fill_bytes(&scratch, 1).unwrap();
    encoder.commit_and_wait().unwrap();
    let mut memory = [0_u32; 4];
    // SAFETY: the array outlives the handle; nothing uses it.
    let raw = unsafe { RawBuffer::from_host(device, memory.as_mut_ptr().cast(), 16, None) };
    drop((scratch, pooled, raw));
    pool.reset().unwrap();
    pool.trim();
    commit(device);
    assert_eq!(stats(device), (0, 0, 0));
}

pub fn registering_is_idempotent(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::new();
    let pooled = pool.alloc(device, 100, DType::U8, vec![]).unwrap();
    for handle in [&pooled, &pooled.clone(), &pooled.slice_view(4, 4)] {
        pool.register_existing(device, handle).unwrap();
    }
    MlxBufferPool::new().register_existing(device, &pooled).unwrap();
    assert_eq!(stats(device), (1, 0, 0));
    let allocated = u32s(device, &[1]);
    pool.register_existing(device, &allocated).unwrap();
    assert_eq!(stats(device), (2, 0, 0), "an allocated buffer has joined already");
    assert_eq!((pool.in_use_count(), pool.free_count()), (1, 0), "registering gives no ownership");
    commit(device);
    drop(allocated);
    assert_eq!(stats(device), (2, 1, 1));
    pool.release(pooled).unwrap();
    pool.trim();
    assert_eq!(stats(device), (2, 2, 1));
}

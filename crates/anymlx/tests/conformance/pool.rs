//! Reuse of buffers.

use anymlx::{DType, MlxBuffer, MlxBufferPool, MlxDevice, MlxError, read, write};

use crate::{
    subject::Subject,
    support::{Gate, add_one, assert_error, dispatch, invalid, launch, no_memory, submit, u32s, values},
};

fn bytes(pool: &mut MlxBufferPool, device: &MlxDevice, byte_len: usize) -> anymlx::Result<MlxBuffer> {
    pool.alloc(device, byte_len, DType::U8, vec![byte_len])
}

pub fn blocks_are_reused_by_size_class(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::new();
    for byte_len in (1..300).chain([1000, 4097, 65_535, 1_000_003]) {
        let buffer = bytes(&mut pool, device, byte_len).unwrap();
        let waste = buffer.byte_len() - buffer.data_byte_len();
        assert!(waste * 8 <= byte_len, "{byte_len} bytes waste {waste}");
        pool.release(buffer).unwrap();
    }
    let mut pool = MlxBufferPool::new();
    let first = bytes(&mut pool, device, 1000).unwrap();
    let (address, class) = (first.raw().address(), first.byte_len());
    pool.release(first).unwrap();
    let smaller = bytes(&mut pool, device, 970).unwrap();
    assert_eq!((smaller.raw().address(), smaller.byte_len()), (address, class), "the same class is reused");
    let (larger, half) = (bytes(&mut pool, device, class + 1).unwrap(), bytes(&mut pool, device, 500).unwrap());
    assert!(larger.byte_len() > class && half.byte_len() < 600);
    let stats = pool.stats();
    assert_eq!((stats.hits, stats.misses, stats.in_use_blocks, stats.free_blocks), (1, 3, 3, 0));
    assert_eq!(stats.in_use_bytes, (class + larger.byte_len() + half.byte_len()) as u64);
    assert_error(bytes(&mut pool, device, 0), invalid, &["pool", "0 bytes"]);
    assert_error(pool.alloc(device, 8, DType::F32, vec![3]), invalid, &["pool alloc", "[3]", "12"]);
    assert_error(pool.alloc(device, 8, DType::F32, vec![usize::MAX, 9]), invalid, &["pool alloc"]);
    assert_error(pool.alloc(device, usize::MAX, DType::U8, vec![]), no_memory, &[]);
}

pub fn handles_have_the_length_asked_for(subject: &Subject) {
    let mut pool = MlxBufferPool::new();
    let buffer = pool.alloc(&subject.device, 924 + 73, DType::F32, vec![7, 33]).unwrap();
    assert_eq!((buffer.data_byte_len(), buffer.element_count(), buffer.byte_offset()), (997, 231, 0));
    assert!(buffer.byte_len() > 997, "the block is larger");
    assert_eq!(buffer.as_slice::<u8>().unwrap().len(), 997);
    assert_error(buffer.try_slice_view(996, 1), invalid, &["997 logical"]);
}

pub fn memory_in_flight_is_not_handed_out(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::new();
    let buffer = bytes(&mut pool, device, 1000).unwrap();
    let address = buffer.raw().address();
    let gate = Gate::new(device);
    let submission = gate.enter(device, &[read(&buffer)]);
    pool.release(buffer).unwrap();
    assert_eq!((pool.free_count(), pool.in_use_count()), (1, 0));
    let other = bytes(&mut pool, device, 1000).unwrap();
    assert_ne!(other.raw().address(), address);
    gate.open();
    submission.wait().unwrap();
    assert_eq!(bytes(&mut pool, device, 1000).unwrap().raw().address(), address);
}

pub fn live_handles_prevent_release_and_reset(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::new();
    let first = bytes(&mut pool, device, 1000).unwrap();
    let second = bytes(&mut pool, device, 1000).unwrap();
    let view = first.slice_view(0, 10);
    assert_error(pool.release(first), invalid, &["pool release", "1 more handle"]);
    assert_eq!((pool.in_use_count(), pool.free_count()), (2, 0), "it stays in use");
    drop(second);
    assert_error(pool.reset(), invalid, &["pool reset", "1 more handle"]);
    assert_eq!((pool.in_use_count(), pool.free_count()), (2, 0), "nothing was taken back");
    let guard = view.read::<u8>().unwrap();
    assert_error(pool.release(view), invalid, &["pool release"]);
    drop(guard);
    pool.reset().unwrap();
    assert_eq!((pool.in_use_count(), pool.free_count()), (0, 2));
    let stranger = device.alloc_buffer(1000, DType::U8, vec![]).unwrap();
    assert_error(pool.release(stranger), invalid, &["pool release", "not handed out by this pool"]);
}

pub fn recorded_commands_and_graphs_prevent_release(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::new();
    let buffer = bytes(&mut pool, device, 1000).unwrap();
    let mut encoder = device.command_encoder().unwrap();
    encoder.fill_bytes(&buffer, 1).unwrap();
    assert_error(pool.release(buffer), invalid, &["recorded commands"]);
    assert_error(pool.reset(), invalid, &["recorded commands"]);
    encoder.commit().unwrap();
    pool.reset().expect("submitted work holds no handle");
    let buffer = bytes(&mut pool, device, 1000).unwrap();
    let graph = device.record(|encoder| encoder.fill_bytes(&buffer, 1)).unwrap();
    assert_error(pool.release(buffer), invalid, &["graphs"]);
    graph.replay().unwrap();
    assert_error(pool.reset(), invalid, &["graphs"]);
    drop(graph);
    pool.reset().unwrap();
    assert_eq!(pool.in_use_count(), 0);
}

pub fn reset_takes_everything_back(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::new();
    for round in 0..3 {
        let buffers: Vec<_> = (1..=5).map(|k| bytes(&mut pool, device, 1000 * k).unwrap()).collect();
        assert_eq!((pool.in_use_count(), pool.free_count()), (5, 0));
        drop(buffers);
        pool.reset().unwrap();
        assert_eq!((pool.in_use_count(), pool.free_count()), (0, 5));
        let stats = pool.stats();
        assert_eq!((stats.misses, stats.hits), (5, 5 * round));
        assert_eq!(pool.free_bytes(), device.info().memory_in_use);
    }
}

pub fn the_limit_evicts_the_least_recently_released(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::with_limit(1024 + 2048 + 4096);
    let sizes = [2048, 1024, 4096];
    let [a, b, c] = sizes.map(|size| bytes(&mut pool, device, size).unwrap());
    assert_error(bytes(&mut pool, device, 1), no_memory, &["pool's limit", "7168"]);
    // Released in the order b, c, a.
    [b, c, a].into_iter().for_each(|buffer| pool.release(buffer).unwrap());
    assert_eq!((pool.free_count(), pool.free_bytes()), (3, 7168));
    let held = bytes(&mut pool, device, 512).unwrap();
    assert_eq!((pool.free_count(), pool.free_bytes(), pool.stats().evictions), (2, 6144, 1), "b made room");
    let more = bytes(&mut pool, device, 1000).unwrap();
    assert_eq!((pool.free_bytes(), pool.stats().evictions), (2048, 2), "c made room");
    assert_eq!(device.info().memory_in_use, pool.stats().in_use_bytes + pool.free_bytes());
    assert_error(bytes(&mut pool, device, 7000), no_memory, &["pool's limit"]);
    drop((held, more));

    let device = subject.with_memory_limit(10_000);
    let mut pool = MlxBufferPool::new();
    let waiting = bytes(&mut pool, &device, 8192).unwrap();
    pool.release(waiting).unwrap();
    let other = bytes(&mut pool, &device, 4096).expect("what waits is given up when the device is full");
    assert_eq!((pool.free_count(), pool.in_use_count(), other.byte_len()), (0, 1, 4096));
}

pub fn trim_and_clear(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::new();
    let (kept, waiting) = (bytes(&mut pool, device, 1024).unwrap(), bytes(&mut pool, device, 4096).unwrap());
    pool.release(waiting).unwrap();
    pool.trim();
    assert_eq!((pool.free_count(), pool.free_bytes(), pool.in_use_count()), (0, 0, 1));
    assert_eq!(device.info().memory_in_use, 1024);
    pool.clear();
    assert_eq!((pool.free_count(), pool.in_use_count()), (0, 0));
    kept.copy_from_slice(&[1_u8; 1024]).unwrap();
    assert_eq!(kept.as_slice::<u8>().unwrap(), [1; 1024], "a handle keeps its memory");
    assert_error(pool.release(kept), invalid, &["not handed out"]);
    assert_eq!(device.info().memory_in_use, 0);
}

pub fn batches_are_all_or_nothing(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::with_limit(10_000);
    let request = |byte_len: usize| (byte_len, DType::U8, vec![byte_len]);
    let batch = pool.alloc_batch(device, &[request(1000), request(2000), request(1000)]).unwrap();
    assert_eq!(batch.iter().map(MlxBuffer::data_byte_len).collect::<Vec<_>>(), [1000, 2000, 1000]);
    assert!(!batch[0].shares_storage_with(&batch[2]));
    let refused = pool.alloc_batch(device, &[request(1000), request(20_000)]);
    assert_error(refused, no_memory, &["pool's limit"]);
    assert_eq!(pool.in_use_count(), 3, "what the failed batch had is back");
    assert!(pool.alloc_batch(device, &[]).unwrap().is_empty());
}

pub fn a_pool_serves_one_device(subject: &Subject) {
    let (device, other) = (&subject.device, subject.another());
    let mut pool = MlxBufferPool::new();
    let buffer = bytes(&mut pool, device, 1000).unwrap();
    assert_error(bytes(&mut pool, &other, 1000), invalid, &["pool", "another device"]);
    pool.release(buffer).unwrap();
    let foreign = u32s(&other, &[1]);
    assert_error(pool.register_existing(device, &foreign), invalid, &["register_existing", "another device"]);
}

pub fn scratch_comes_back_by_itself(subject: &Subject) {
    let device = &subject.device;
    let add_one = add_one(device);
    let mut pool = MlxBufferPool::new();
    let (input, output) = (u32s(device, &[1; 33]), u32s(device, &[0; 33]));
    let gate = Gate::new(device);
    gate.enter(device, &[]);
    let mut encoder = device.command_encoder().unwrap();
    let address = {
        let scratch = encoder.scratch(&mut pool, DType::U32, &[33]).unwrap();
        dispatch(&mut encoder, &add_one, &[read(&input), write(&scratch)], 33);
        dispatch(&mut encoder, &add_one, &[read(&scratch), write(&output)], 33);
        scratch.raw().address()
    };
    assert_eq!((pool.in_use_count(), pool.free_count()), (1, 0), "recorded commands use it");
    let submission = encoder.commit().unwrap();
    assert_eq!((pool.in_use_count(), pool.free_count()), (0, 1));
    let mut next = device.command_encoder().unwrap();
    let other = next.scratch(&mut pool, DType::U32, &[33]).unwrap();
    assert_ne!(other.raw().address(), address, "submitted commands use it");
    gate.open();
    submission.wait().unwrap();
    assert_eq!(values(&output), [3; 33]);
    let again = next.scratch(&mut pool, DType::U32, &[33]).unwrap();
    assert_eq!(again.raw().address(), address);
    drop((again, other, next));
    assert_eq!((pool.in_use_count(), pool.free_count()), (0, 2), "an abandoned encoder gives its scratch back");
    let mut encoder = device.command_encoder().unwrap();
    assert_error(encoder.scratch(&mut pool, DType::F32, &[usize::MAX, 2]), invalid, &["scratch"]);

    let graph = device
        .record(|encoder| {
            let scratch = encoder.scratch(&mut pool, DType::U32, &[33])?;
            encoder.dispatch(&add_one, &[read(&input), write(&scratch)], &(), launch(33))
        })
        .unwrap();
    assert_eq!(pool.in_use_count(), 1, "a graph keeps its scratch");
    drop(graph);
    assert_eq!(pool.in_use_count(), 0);
}

pub fn a_reused_block_forgets_failures(subject: &Subject) {
    let device = &subject.device;
    let mut pool = MlxBufferPool::new();
    let buffer = bytes(&mut pool, device, 1000).unwrap();
    device.fail_next_submission("the power went").unwrap();
    let failing = crate::support::kernel(device, "any", anymlx::CpuKernel::whole(|_| Ok(())));
    submit(device, &failing, &[write(&buffer)], 1).wait().unwrap_err();
    let address = buffer.raw().address();
    assert!(matches!(buffer.as_slice::<u8>(), Err(MlxError::Poisoned(_))));
    pool.release(buffer).unwrap();
    let next = bytes(&mut pool, device, 1000).unwrap();
    assert_eq!(next.raw().address(), address);
    next.as_slice::<u8>().expect("the failure was not this buffer's");
}

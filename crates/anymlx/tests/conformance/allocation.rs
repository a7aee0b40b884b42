//! Allocating and mapping memory.

use std::{io::Write, sync::Barrier};

use anymlx::{DType, MlxError, StorageMode, read, write};

use crate::{
    subject::Subject,
    support::{add_one, assert_error, dispatch, invalid, launch, no_memory, not_visible, read_only, u32s, values},
};

pub fn new_memory_is_zero_and_exact(subject: &Subject) {
    for byte_len in [1, 7, 4096, 4097, 1_000_003] {
        let buffer = subject.device.alloc_buffer(byte_len, DType::U8, vec![byte_len]).unwrap();
        assert_eq!((buffer.byte_len(), buffer.data_byte_len(), buffer.element_count()), (byte_len, byte_len, byte_len));
        assert_eq!(buffer.as_slice::<u8>().unwrap(), vec![0; byte_len]);
        assert_eq!(buffer.to_vec::<u8>().unwrap(), vec![0; byte_len]);
    }
    let device = &subject.device;
    let (zeros, ones) = (device.zeros(DType::U32, [231]).unwrap(), u32s(device, &[9; 231]));
    let mut encoder = device.command_encoder().unwrap();
    dispatch(&mut encoder, &add_one(device), &[read(&zeros), write(&ones)], 231);
    encoder.commit_and_wait().unwrap();
    assert_eq!(values(&ones), [1; 231], "the device sees zeros as well");
}

pub fn refuses_no_bytes_and_shapes_that_do_not_fit(subject: &Subject) {
    let device = &subject.device;
    assert_error(device.alloc_buffer(0, DType::F32, vec![]), invalid, &["alloc_buffer", "0 bytes"]);
    assert_error(device.alloc_buffer(0, DType::F32, vec![0]), invalid, &["alloc_buffer", "0 bytes"]);
    let parts = ["alloc_buffer", "[7, 33]", "f32", "924", "923"];
    assert_error(device.alloc_buffer(923, DType::F32, vec![7, 33]), invalid, &parts);
    for shape in [vec![usize::MAX, 2], vec![1 << 40, 1 << 40], vec![usize::MAX / 4 + 1], vec![1 << 32, 1 << 30]] {
        let text = format!("{shape:?}");
        assert_error(device.alloc_buffer(4096, DType::F32, shape), invalid, &["alloc_buffer", &text]);
    }
    assert!(device.alloc_buffer(924, DType::F32, vec![7, 33]).is_ok());
    assert!(device.alloc_buffer(1, DType::F32, vec![0, 33]).is_ok());
}

pub fn refuses_what_is_past_the_limit(subject: &Subject) {
    let device = subject.with_memory_limit(10_000);
    let first = device.alloc_buffer(6_000, DType::U8, vec![]).unwrap();
    let refused = device.alloc_buffer(4_001, DType::U8, vec![]);
    assert!(refused.as_ref().unwrap_err().is_transient());
    assert_error(refused, no_memory, &["4001 bytes", "6000 bytes in use", "10000"]);
    let second = device.alloc_buffer(4_000, DType::U8, vec![]).unwrap();
    assert_error(device.alloc_buffer(1, DType::U8, vec![]), no_memory, &["10000 bytes in use"]);
    drop((first, second));
    device.alloc_buffer(10_000, DType::U8, vec![]).unwrap();
    for huge in [usize::MAX, isize::MAX as usize, 1 << 62] {
        let error = subject.device.alloc_buffer(huge, DType::U8, vec![]).unwrap_err();
        assert!(matches!(error, MlxError::BufferAllocationError { bytes, .. } if bytes == huge as u64), "{error}");
    }
}

pub fn counts_what_is_in_use(subject: &Subject) {
    let device = &subject.device;
    let in_use = || device.info().memory_in_use;
    assert_eq!(in_use(), 0);
    let small = device.alloc_buffer(1_000, DType::U8, vec![]).unwrap();
    let large = device.alloc_buffer(1_000_000, DType::U8, vec![]).unwrap();
    let view = large.slice_view(0, 1);
    assert_eq!(in_use(), 1_001_000);
    drop(large);
    assert_eq!(in_use(), 1_001_000, "a view keeps the storage");
    drop((small, view));
    assert_eq!(in_use(), 0);
}

pub fn a_refused_request_harms_no_other(subject: &Subject) {
    let device = subject.with_memory_limit(1 << 20);
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for _ in 0..50_000 {
                assert!(device.alloc_buffer(1 << 30, DType::U8, vec![]).is_err());
            }
        });
        start.wait();
        for _ in 0..10_000 {
            device.alloc_buffer(1_000, DType::U8, vec![]).expect("the other thread's refusals hold nothing");
        }
    });
    assert_eq!(device.info().memory_in_use, 0);
}

pub fn typed_constructors_check_their_shapes(subject: &Subject) {
    let device = &subject.device;
    let zeros = device.zeros(DType::F16, [7, 33, 11]).unwrap();
    assert_eq!((zeros.byte_len(), zeros.shape()), (7 * 33 * 11 * 2, &[7, 33, 11][..]));
    assert_error(device.zeros(DType::F16, [usize::MAX, 3]), invalid, &["zeros"]);
    assert_error(device.zeros(DType::F16, [3, 0]), invalid, &["0 bytes"]);
    let given = device.buffer_from_slice(&[1.5_f32, 2.5], DType::F32, [2, 1]).unwrap();
    assert_eq!(given.to_vec::<f32>().unwrap(), [1.5, 2.5]);
    let parts = ["buffer_from_slice", "8 bytes", "[3]", "f32"];
    assert_error(device.buffer_from_slice(&[1.5_f32, 2.5], DType::F32, [3]), invalid, &parts);
}

pub fn files_are_mapped_read_only(subject: &Subject) {
    let device = &subject.device;
    let numbers: Vec<u32> = (0..5_000).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytemuck::cast_slice(&numbers)).unwrap();
    let mut mapped = device.map_file(file.path()).unwrap();
    assert_eq!((mapped.byte_len(), mapped.dtype(), mapped.shape()), (20_000, DType::U8, &[20_000][..]));
    assert!(mapped.is_read_only());
    let copied = if subject.is_gpu() && !subject.is_unified() { 20_000 } else { 0 };
    assert_eq!(device.info().memory_in_use, copied, "mapped, and copied only to memory of its own");
    assert_eq!(mapped.as_slice::<u32>().unwrap(), numbers);
    assert_eq!(*mapped.read::<u32>().unwrap(), numbers);
    assert_error(mapped.as_mut_slice::<u32>().map(|_| ()), read_only, &["as_mut_slice"]);
    assert_error(mapped.write::<u32>(), read_only, &["write"]);
    assert_error(mapped.copy_from_slice(&[1_u32]), read_only, &["write"]);
    let target = u32s(device, &vec![0; 5_000]);
    let mut encoder = device.command_encoder().unwrap();
    let written = encoder.dispatch(&add_one(device), &[read(&target), write(&mapped)], &(), launch(1));
    assert_error(written, read_only, &["dispatch"]);
    assert_error(encoder.fill_bytes(&mapped, 0), read_only, &["fill"]);
    assert_error(encoder.copy_bytes(&target, &mapped), read_only, &["copy"]);
    dispatch(&mut encoder, &add_one(device), &[read(&mapped), write(&target)], 5_000);
    encoder.commit_and_wait().unwrap();
    assert_eq!(values(&target), (1..5_001).collect::<Vec<_>>());
}

pub fn files_that_cannot_be_mapped_are_named(subject: &Subject) {
    let missing = std::env::temp_dir().join("anymlx-no-such-file");
    let name = missing.display().to_string();
    assert_error(subject.device.map_file(&missing), |error| matches!(error, MlxError::IoError(_)), &[&name]);
    let empty = tempfile::NamedTempFile::new().unwrap();
    let name = empty.path().display().to_string();
    let result = subject.device.map_file(empty.path());
    assert_error(result, |error| matches!(error, MlxError::IoError(_)), &[&name, "empty"]);
}

pub fn private_storage_moves_bytes_only_explicitly(subject: &Subject) {
    let device = &subject.device;
    let mut private = device.alloc_buffer_with(132, DType::U32, vec![33], StorageMode::Private).unwrap();
    assert_error(private.as_slice::<u32>().map(|_| ()), not_visible, &["as_slice", "copy_from_slice", "to_vec"]);
    assert_error(private.as_mut_slice::<u32>().map(|_| ()), not_visible, &["as_mut_slice"]);
    assert_error(private.read::<u32>(), not_visible, &["read"]);
    assert_error(private.write::<u32>(), not_visible, &["write"]);
    assert_eq!(values(&private), [0; 33]);
    let numbers: Vec<u32> = (0..33).collect();
    private.copy_from_slice(&numbers).unwrap();
    private.slice_view(4, 2).copy_from_slice(&[70_u32, 71]).unwrap();
    let shared = u32s(device, &[0; 33]);
    let mut encoder = device.command_encoder().unwrap();
    dispatch(&mut encoder, &add_one(device), &[read(&private), write(&shared)], 33);
    encoder.copy_bytes(&shared.slice_view(0, 5), &private.slice_view(112, 5)).unwrap();
    encoder.commit_and_wait().unwrap();
    assert_eq!(values(&private)[..4], [0, 70, 71, 3]);
    assert_eq!(values(&private)[27..], [27, 1, 71, 72, 4, 5]);
    assert_eq!(values(&private.slice_view(128, 1)), [5]);
}

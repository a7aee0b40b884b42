//! Allocations, transfers, files, foreign memory.

use std::{fs, io::Write};

use super::{device, floats, kernel, open, read, submit_one};
use crate::{
    HalError,
    backend::{Buffer as _, Device as _, ForeignMemory, Pending as _, StorageMode},
    cuda::{Buffer, CudaContext, CudaOptions, Device},
};

/// Bytes that differ from their neighbours near and far.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn new_memory_is_zero_and_aligned() {
    let Some(device) = device() else { return };
    for byte_len in [1, 3, 4096, 7 * 33 * 11, (20 << 20) + 1] {
        let used = device.allocate(byte_len, StorageMode::Shared).expect("allocates");
        device.upload(&used, 0, &vec![0xa5; byte_len as usize]).expect("uploads");
        drop(used);
        let buffer = device.allocate(byte_len, StorageMode::Private).expect("allocates");
        assert_eq!((buffer.byte_len(), buffer.address() % 256), (byte_len, 0));
        assert!(buffer.host_pointer().is_none() && !buffer.read_only());
        assert!(read::<u8>(&device, &buffer).iter().all(|&byte| byte == 0), "{byte_len} bytes");
    }
}

#[test]
fn transfers_of_all_sizes_arrive() {
    let Some(device) = device() else { return };
    for byte_len in [1, 65_535, 65_536, 65_537, 8 << 20, (8 << 20) + 1, (33 << 20) + 7] {
        let buffer = device.allocate(byte_len as u64, StorageMode::Shared).expect("allocates");
        let bytes = pattern(byte_len);
        device.upload(&buffer, 0, &bytes).expect("uploads");
        assert!(read::<u8>(&device, &buffer) == bytes, "{byte_len} bytes");
    }
    let buffer = device.allocate(1000, StorageMode::Shared).expect("allocates");
    device.upload(&buffer, 0, &pattern(1000)).expect("uploads");
    let mut expected = pattern(1000);
    // More small uploads than there are slots, without a wait between them.
    for at in 0..100 {
        expected[at * 7 + 3] = at as u8;
        device.upload(&buffer, at as u64 * 7 + 3, &[at as u8]).expect("uploads");
    }
    let mut part = [0; 500];
    device.download(&buffer, 123, &mut part).expect("downloads");
    assert_eq!(part[..], expected[123..623]);
}

#[test]
fn transfers_outside_a_buffer_are_refused() {
    let Some(device) = device() else { return };
    let buffer = device.allocate(10, StorageMode::Shared).expect("allocates");
    for (offset, len) in [(0, 11), (10, 1), (u64::MAX, 1)] {
        let error = device.upload(&buffer, offset, &vec![0; len]).expect_err("outside");
        assert!(matches!(error, HalError::InvalidUse { operation: "upload", .. }), "{error}");
        let error = device.download(&buffer, offset, &mut vec![0; len]).expect_err("outside");
        assert!(matches!(error, HalError::InvalidUse { operation: "download", .. }), "{error}");
    }
}

#[test]
fn bytes_arrive_while_other_work_runs() {
    let Some(device) = device() else { return };
    let (spin, done, busy) = (kernel(&device, "spin"), floats(&device, &[0.0]), floats(&device, &[0.0]));
    submit_one(&device, "done", &spin, &done, 10).wait().expect("runs");
    let pending = submit_one(&device, "busy", &spin, &busy, 500_000);
    let value: Vec<u32> = read(&device, &done);
    assert!(pending.poll().is_none(), "still running");
    assert_eq!(value, [10]);
    pending.wait().expect("runs");
    assert_eq!(read::<u32>(&device, &busy), [500_000]);
}

#[test]
fn what_was_put_into_memory_is_seen() {
    let Some(device) = device() else { return };
    let (spin, busy) = (kernel(&device, "spin"), floats(&device, &[0.0]));
    let pending = submit_one(&device, "busy", &spin, &busy, 20_000);
    let (zeros, uploaded) =
        (device.allocate(4 << 20, StorageMode::Shared).expect("allocates"), floats(&device, &[7.0]));
    assert_eq!(read::<f32>(&device, &uploaded), [7.0]);
    assert!(read::<u32>(&device, &zeros).iter().all(|&word| word == 0));
    pending.wait().expect("runs");
}

#[test]
fn exhausted_memory_says_what_was_asked_and_is_free() {
    // No limit but the driver's.
    let Some(device) = open(&CudaOptions { memory_limit: Some(u64::MAX), ..CudaOptions::default() }) else { return };
    let asked = device.info().memory_total + 1;
    let error = device.allocate(asked, StorageMode::Private).expect_err("more than there is");
    assert!(matches!(&error, HalError::OutOfMemory { asked: given, .. } if *given == asked), "{error}");
    let half = device.info().memory_total / 2 + (1 << 30);
    let first = device.allocate(half, StorageMode::Private).expect("half of the memory");
    assert_eq!(device.info().memory_in_use, half);
    let error = device.allocate(half, StorageMode::Private).expect_err("the other half is not free");
    eprintln!("{error}");
    let HalError::OutOfMemory { asked, in_use, .. } = error else { panic!("{error}") };
    assert_eq!((asked, in_use), (half, half));
    drop(first);
    assert_eq!(device.info().memory_in_use, 0);
}

#[test]
fn a_limit_on_the_whole_is_kept() {
    let Some(device) = open(&CudaOptions { memory_limit: Some(1000), ..CudaOptions::default() }) else { return };
    let first = device.allocate(600, StorageMode::Shared).expect("fits");
    let error = device.allocate(401, StorageMode::Shared).expect_err("over the limit");
    assert!(matches!(error, HalError::OutOfMemory { asked: 401, in_use: 600, .. }), "{error}");
    drop(first);
    device.allocate(1000, StorageMode::Shared).expect("room again");
}

#[test]
fn a_file_is_copied_and_read_only() {
    let Some(device) = device() else { return };
    let path = std::env::temp_dir().join(format!("anymlx-cuda-{}", std::process::id()));
    let bytes = pattern((17 << 20) + 5);
    fs::File::create(&path).and_then(|mut file| file.write_all(&bytes)).expect("written");
    let file = fs::File::open(&path).expect("open");
    let whole = device.map_file(&file, 0, bytes.len() as u64).expect("maps");
    let part = device.map_file(&file, 8192, 777).expect("maps");
    let past = device.map_file(&file, 4096, bytes.len() as u64).expect_err("past the end");
    fs::remove_file(&path).expect("removed");
    assert!(whole.read_only() && read::<u8>(&device, &whole) == bytes);
    assert_eq!(read::<u8>(&device, &part), bytes[8192..8969]);
    assert!(matches!(past, HalError::Io { .. }), "{past}");
}

fn foreign(buffer: &Buffer, offset: u64, byte_len: u64) -> ForeignMemory {
    ForeignMemory { address: buffer.address() + offset, byte_len, read_only: false, owner: None }
}

#[test]
fn device_pointers_are_imported() {
    let Some(device) = device() else { return };
    let buffer = device.allocate(4000, StorageMode::Shared).expect("allocates");
    // SAFETY: the buffer outlives what is imported, and nothing runs.
    let part = unsafe { device.import(foreign(&buffer, 1000, 2000)) }.expect("imports");
    device.upload(&part, 0, &pattern(2000)).expect("uploads");
    assert_eq!(read::<u8>(&device, &buffer)[1000..3000], pattern(2000));
    let in_use = device.info().memory_in_use;
    drop(part);
    assert_eq!(device.info().memory_in_use, in_use, "the memory is its owner's");
    let refused = |memory: ForeignMemory| {
        // SAFETY: refused, so never accessed.
        let error = unsafe { device.import(memory) }.expect_err("refused");
        assert!(matches!(error, HalError::InvalidUse { operation: "import memory", .. }), "{error}");
        eprintln!("{error}");
    };
    let host = [0_u8; 64];
    refused(ForeignMemory { address: 0, ..foreign(&buffer, 0, 8) });
    refused(ForeignMemory { address: host.as_ptr().addr() as u64, ..foreign(&buffer, 0, 8) });
    refused(foreign(&buffer, 0, 1 << 40));
}

/// Prints whether one context's memory can be used in another.
#[test]
fn memory_of_other_contexts_is_imported_or_refused_with_a_hint() {
    let Some(primary) = open(&CudaOptions { context: CudaContext::Primary, ..CudaOptions::default() }) else { return };
    let same = open(&CudaOptions { context: CudaContext::Primary, ..CudaOptions::default() }).expect("opens");
    let own = device().expect("opens");
    let buffer = primary.allocate(4096, StorageMode::Shared).expect("allocates");
    primary.upload(&buffer, 0, &pattern(4096)).expect("uploads");
    let read_back = |device: &Device| -> crate::Result<bool> {
        // SAFETY: the buffer outlives what is imported, and nothing runs.
        let imported = unsafe { device.import(foreign(&buffer, 0, 4096)) }?;
        let copy: Vec<u8> = read(device, &imported);
        crate::Result::Ok(copy == pattern(4096))
    };
    // What was uploaded lies on the other device's stream.
    assert_eq!(read::<u8>(&primary, &buffer).len(), 4096);
    assert!(read_back(&same).expect("the same context"));
    match read_back(&own) {
        Ok(equal) => {
            eprintln!("imported into another context");
            assert!(equal);
        }
        Err(error) => assert!(error.to_string().contains("primary context"), "{error}"),
    }
}

#[test]
fn bytes_are_copied_between_devices() {
    let Some(first) = device() else { return };
    let other = CudaOptions { index: 1, ..CudaOptions::default() };
    let second = Device::open(&other).unwrap_or_else(|error| {
        eprintln!("two contexts of one GPU in place of two GPUs: {error}");
        Device::open(&CudaOptions::default()).expect("opens")
    });
    let bytes = pattern((9 << 20) + 3);
    let from = first.allocate(bytes.len() as u64, StorageMode::Shared).expect("allocates");
    first.upload(&from, 0, &bytes).expect("uploads");
    let to = second.allocate(bytes.len() as u64, StorageMode::Shared).expect("allocates");
    second.copy_from_peer((&to, 0), &first, (&from, 0), bytes.len()).expect("copies");
    assert!(read::<u8>(&second, &to) == bytes);
    second.copy_from_peer((&to, 5), &first, (&from, 100), 7).expect("copies");
    assert_eq!(read::<u8>(&second, &to)[5..12], bytes[100..107]);
}

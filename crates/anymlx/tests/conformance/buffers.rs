//! Handles: foreign memory, views, shapes, lengths.

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

use anymlx::{DType, MlxBuffer, RawBuffer, StorageMode, read, write};

use crate::{
    subject::Subject,
    support::{add_one, assert_error, dispatch, invalid, u32s, values},
};

pub fn foreign_memory_is_used_in_place(subject: &Subject) {
    let device = &subject.device;
    let mut memory: Vec<u32> = (0..231).collect();
    let start = memory.as_mut_ptr();
    // SAFETY: the vector outlives all handles and work, and is not touched meanwhile.
    let raw = unsafe { RawBuffer::from_host(device, start.cast(), 231 * 4, None) };
    if !subject.is_unified() {
        return assert_error(raw, invalid, &["from_host", "does not share memory"]);
    }
    let buffer = MlxBuffer::from_raw(raw.unwrap(), DType::U32, vec![7, 33]);
    assert_eq!((buffer.dtype(), buffer.shape(), buffer.element_count()), (DType::U32, &[7, 33][..], 231));
    assert_eq!((buffer.byte_len(), buffer.data_byte_len(), buffer.byte_offset()), (924, 924, 0));
    assert_eq!(buffer.contents_ptr(), start.cast());
    assert_eq!(buffer.as_slice::<u32>().unwrap().as_ptr(), start.cast_const());
    assert_eq!(buffer.raw().byte_len(), 924);
    let source = u32s(device, &[10; 231]);
    let mut encoder = device.command_encoder().unwrap();
    dispatch(&mut encoder, &add_one(device), &[read(&source), write(&buffer)], 231);
    encoder.commit_and_wait().unwrap();
    drop(buffer);
    assert_eq!(memory, [11; 231]);
    assert_eq!(device.residency_stats().adds, 1, "only the allocated buffer joins");
}

pub fn foreign_memory_needs_a_place_and_a_size(subject: &Subject) {
    let mut memory = [0_u32; 4];
    for (start, byte_len) in [(std::ptr::null_mut(), 16), (memory.as_mut_ptr().cast(), 0)] {
        // SAFETY: nothing is accessed: the request is refused.
        let raw = unsafe { RawBuffer::from_host(&subject.device, start, byte_len, None) };
        assert_error(raw, invalid, &["from_host"]);
    }
}

pub fn views_add_their_offsets(subject: &Subject) {
    let numbers: Vec<u32> = (0..100).collect();
    let buffer = u32s(&subject.device, &numbers).with_shape([4, 25]).unwrap();
    let outer = buffer.slice_view(40, 50);
    let inner = outer.slice_view(20, 7);
    assert_eq!((outer.shape(), outer.byte_offset(), outer.data_byte_len()), (&[50][..], 40, 200));
    assert_eq!((inner.shape(), inner.byte_offset(), inner.data_byte_len()), (&[7][..], 60, 28));
    assert_eq!((inner.dtype(), inner.byte_len()), (DType::U32, 400));
    assert_eq!(inner.as_slice::<u32>().unwrap(), &numbers[15..22]);
    assert!(inner.shares_storage_with(&buffer));
    let empty = inner.slice_view(28, 0);
    assert_eq!((empty.shape(), empty.element_count(), empty.data_byte_len()), (&[0][..], 0, 0));
    assert!(empty.as_slice::<u32>().unwrap().is_empty());
}

pub fn views_outside_the_parent_panic_or_err(subject: &Subject) {
    let parent = u32s(&subject.device, &[1; 33]).slice_view(8, 10);
    assert_eq!(parent.try_slice_view(0, 10).unwrap().byte_offset(), 8);
    for (byte_offset, elements) in
        [(0, 11), (4, 10), (40, 1), (44, 0), (u64::MAX, 1), (u64::MAX - 3, 1), (0, usize::MAX), (4, usize::MAX / 4)]
    {
        let error = parent.try_slice_view(byte_offset, elements);
        assert_error(error, invalid, &["slice_view", &elements.to_string(), &byte_offset.to_string(), "40 logical"]);
        let panicked = catch_unwind(AssertUnwindSafe(|| parent.slice_view(byte_offset, elements)));
        assert!(panicked.is_err(), "{byte_offset} {elements}");
    }
}

pub fn kernels_see_only_the_view(subject: &Subject) {
    let device = &subject.device;
    let source = u32s(device, &(0..33).collect::<Vec<_>>());
    let target = u32s(device, &[100; 33]);
    let (from, to) = (source.slice_view(8, 7), target.slice_view(40, 7));
    let copy = crate::support::kernel(
        device,
        "copy_seven",
        anymlx::CpuKernel::whole(|arguments| {
            let input = arguments.to_vec::<u32>(0);
            arguments.output::<u32>(1).copy_from_slice(&input);
            Ok(())
        }),
    );
    let mut encoder = device.command_encoder().unwrap();
    dispatch(&mut encoder, &copy, &[read(&from), write(&to)], 1);
    encoder.commit_and_wait().unwrap();
    let mut expected = vec![100; 33];
    expected[10..17].copy_from_slice(&[2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(values(&target), expected);
}

pub fn views_may_start_anywhere_but_kernels_need_alignment(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[0x0403_0201, 0x0807_0605, 0]);
    let view = buffer.slice_view(2, 1);
    assert_eq!(view.byte_offset(), 2);
    assert_error(view.as_slice::<u32>().map(<[u32]>::to_vec), invalid, &["as_slice", "aligned to 4"]);
    assert_error(view.clone().as_mut_slice::<u32>().map(|_| ()), invalid, &["as_mut_slice", "aligned to 4"]);
    assert_error(view.read::<u32>(), invalid, &["read", "aligned to 4"]);
    assert_error(view.write::<u32>(), invalid, &["write", "aligned to 4"]);
    assert_eq!(view.as_slice::<u8>().unwrap(), [3, 4, 5, 6]);
    assert_eq!(values(&view), [0x0605_0403]);
    let target = u32s(device, &[0]);
    let mut encoder = device.command_encoder().unwrap();
    let refused = encoder.dispatch(&add_one(device), &[read(&view), write(&target)], &(), crate::support::launch(1));
    assert_error(refused, invalid, &["dispatch", "binding 0", "byte 2", "multiple of 4"]);
    encoder.copy_bytes(&view, &target).unwrap();
    encoder.commit_and_wait().unwrap();
    assert_eq!(values(&target), [0x0605_0403]);
}

pub fn reshaped_handles_alias(subject: &Subject) {
    let device = &subject.device;
    let flat = u32s(device, &[0; 231]);
    let mut matrix = flat.with_shape(vec![7, 33]).unwrap();
    assert_eq!((matrix.shape(), matrix.dtype()), (&[7, 33][..], DType::U32));
    matrix.as_mut_slice::<u32>().unwrap()[230] = 5;
    assert_eq!(flat.as_slice::<u32>().unwrap()[230], 5);
    flat.write::<u32>().unwrap()[0] = 6;
    assert_eq!(matrix.as_slice::<u32>().unwrap()[0], 6);
    let source = u32s(device, &[41; 231]);
    let mut encoder = device.command_encoder().unwrap();
    dispatch(&mut encoder, &add_one(device), &[read(&source), write(&flat)], 231);
    encoder.commit_and_wait().unwrap();
    assert_eq!(values(&matrix), [42; 231]);
    let view = flat.slice_view(4, 6).with_shape([2, 3]).unwrap();
    assert_eq!((view.byte_offset(), view.data_byte_len()), (4, 24));
}

pub fn reshaping_keeps_the_element_count(subject: &Subject) {
    let buffer = u32s(&subject.device, &[0; 231]).with_shape([7, 33]).unwrap();
    for shape in [vec![7, 32], vec![232], vec![0, 231], vec![usize::MAX, 2], vec![1]] {
        let text = format!("{shape:?}");
        assert_error(buffer.with_shape(shape), invalid, &["with_shape", "[7, 33]", "231", &text]);
    }
    for shape in [vec![231], vec![1, 231, 1], vec![11, 3, 7], vec![]] {
        assert_eq!(buffer.with_shape(shape).unwrap().element_count(), 231);
    }
}

pub fn mapped_files_are_seen_as_tensors(subject: &Subject) {
    let device = &subject.device;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let numbers: Vec<u32> = (0..100).collect();
    file.write_all(bytemuck::cast_slice(&numbers)).unwrap();
    let mapped = device.map_file(file.path()).unwrap();
    let tensor = mapped.view_as(40, 24, DType::U32, [2, 3]).unwrap();
    assert_eq!((tensor.dtype(), tensor.shape(), tensor.byte_offset()), (DType::U32, &[2, 3][..], 40));
    assert_eq!(tensor.as_slice::<u32>().unwrap(), &numbers[10..16]);
    assert!(tensor.is_read_only() && tensor.shares_storage_with(&mapped));
    let inner = tensor.view_as(4, 8, DType::U16, [4]).unwrap();
    assert_eq!((inner.byte_offset(), inner.data_byte_len(), inner.element_count()), (44, 8, 4));
    for (byte_offset, byte_len) in [(0, 401), (397, 4), (u64::MAX, 4), (400, 1)] {
        assert_error(mapped.view_as(byte_offset, byte_len, DType::U8, []), invalid, &["view_as", "400 bytes"]);
    }
    assert_error(tensor.view_as(0, 28, DType::U8, []), invalid, &["view_as", "24 bytes"]);
    assert_error(mapped.view_as(0, 24, DType::U32, [7]), invalid, &["view_as", "[7]", "28"]);
    assert_error(mapped.view_as(0, 0, DType::U32, [0]), invalid, &["view_as", "0 bytes"]);
    assert_eq!(device.residency_stats().adds, 1, "weights join, their views do not");
}

pub fn element_counts(subject: &Subject) {
    let device = &subject.device;
    let of = |shape: Vec<usize>| device.alloc_buffer(7 * 33 * 11 * 4, DType::F32, shape).unwrap().element_count();
    assert_eq!(of(vec![7, 33, 11]), 2541);
    assert_eq!(of(vec![5]), 5, "the product of the shape, not the bytes");
    assert_eq!(of(vec![1, 1]), 1);
    assert_eq!(of(vec![4, 0]), 0);
    assert_eq!(of(vec![]), 2541, "without a shape: bytes over the element size");
    assert_eq!(device.alloc_buffer(7, DType::U16, vec![]).unwrap().element_count(), 3);
}

pub fn lengths_and_offsets(subject: &Subject) {
    let buffer = subject.device.alloc_buffer(1000, DType::F32, vec![7, 33]).unwrap();
    assert_eq!((buffer.byte_len(), buffer.data_byte_len(), buffer.byte_offset()), (1000, 1000, 0));
    let view = buffer.slice_view(100, 33);
    assert_eq!((view.byte_len(), view.data_byte_len(), view.byte_offset()), (1000, 132, 100));
    let debug = format!("{view:?}");
    ["MlxBuffer", "F32", "33", "100", "132", "1000"].iter().for_each(|part| assert!(debug.contains(part), "{debug}"));
}

pub fn the_base_pointer_is_the_allocation(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1, 2, 3, 4]);
    let view = buffer.slice_view(8, 2);
    assert!(!buffer.contents_ptr().is_null());
    assert_eq!(view.contents_ptr(), buffer.contents_ptr());
    let slice = view.as_slice::<u32>().unwrap().as_ptr();
    assert_eq!(slice.cast(), buffer.contents_ptr().cast_const().wrapping_byte_add(8));
    if subject.is_unified() {
        assert_eq!(buffer.contents_ptr().addr() as u64, buffer.raw().address(), "no copy where memory is unified");
    }
    let private = device.alloc_buffer_with(16, DType::U32, vec![4], StorageMode::Private).unwrap();
    assert!(private.contents_ptr().is_null());
}

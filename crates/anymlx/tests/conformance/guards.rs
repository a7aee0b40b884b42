//! Guards against each other and against submissions.

use anymlx::{DType, MlxBuffer, StorageMode, read, read_write, write};

use crate::{
    subject::Subject,
    support::{Gate, add_one, assert_error, dispatch, held, in_flight, submit, submit_add_one, u32s, values},
};

pub fn guards_exclude_each_other_by_range(subject: &Subject) {
    let buffer = u32s(&subject.device, &(0..10).collect::<Vec<_>>());
    let (left, right, across) = (buffer.slice_view(0, 5), buffer.slice_view(20, 5), buffer.slice_view(16, 2));
    {
        let (first, second) = (left.read::<u32>().unwrap(), across.read::<u32>().unwrap());
        assert_eq!((first[4], second[0]), (4, 4));
        let refused = left.write::<u32>();
        assert!(refused.as_ref().unwrap_err().is_transient());
        assert_error(refused, held, &["write", "0..20", "read guard"]);
        assert_error(right.write::<u32>(), held, &["write", "16..24", "read guard"]);
    }
    {
        let mut first = left.write::<u32>().unwrap();
        let mut second = right.write::<u32>().unwrap();
        first[4] = 40;
        second[0] = 50;
        assert_error(across.read::<u32>(), held, &["read", "write guard"]);
        assert_error(across.write::<u32>(), held, &["write", "write guard"]);
        assert_error(left.read::<u32>(), held, &["read", "0..20", "write guard"]);
        assert_eq!(first[4], 40, "a guard reads what it has written");
    }
    assert_eq!(*across.read::<u32>().unwrap(), [40, 50]);
}

pub fn a_guard_refuses_conflicting_submissions(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1; 8]);
    let (left, right) = (buffer.slice_view(0, 4), buffer.slice_view(16, 4));
    let other = u32s(device, &[5; 4]);

    let reading = left.read::<u32>().unwrap();
    submit_add_one(device, &left, &other).unwrap().wait().unwrap();
    let refused = submit_add_one(device, &other, &left);
    assert!(refused.as_ref().unwrap_err().is_transient());
    assert_error(refused, held, &["submit", "0..16", "read guard"]);
    submit_add_one(device, &other, &right).unwrap().wait().unwrap();
    drop(reading);
    submit_add_one(device, &other, &left).unwrap().wait().unwrap();
    assert_eq!(values(&buffer), [3; 8]);

    let mut writing = right.write::<u32>().unwrap();
    assert_error(submit_add_one(device, &right, &other), held, &["submit", "16..32", "write guard"]);
    assert_error(submit_add_one(device, &other, &right), held, &["submit", "16..32", "write guard"]);
    submit_add_one(device, &left, &other).unwrap().wait().unwrap();
    writing.fill(7);
    drop(writing);
    submit_add_one(device, &right, &left).unwrap().wait().unwrap();
    assert_eq!(values(&left), [8; 4]);
}

pub fn submissions_refuse_guards(subject: &Subject) {
    let device = &subject.device;
    let (source, target) = (u32s(device, &[1; 4]), u32s(device, &[2; 4]));
    let gate = Gate::new(device);
    let submission = gate.enter(device, &[read(&source), read_write(&target.slice_view(0, 2))]);
    let number = submission.id().to_string();
    assert_eq!(*source.read::<u32>().unwrap(), [1; 4]);
    assert_error(source.write::<u32>(), in_flight, &["write", &number]);
    assert_error(target.read::<u32>(), in_flight, &["read", &number]);
    assert_error(target.slice_view(8, 2).write::<u32>(), in_flight, &["write", &number]);
    gate.open();
    submission.wait().unwrap();
    target.write::<u32>().unwrap()[0] = 3;
    assert_eq!(*target.read::<u32>().unwrap(), [3, 2, 2, 2]);
}

pub fn a_guard_outlives_its_buffer(subject: &Subject) {
    let buffer = u32s(&subject.device, &[1; 4]);
    let clone = buffer.clone();
    let mut guard = clone.write::<u32>().unwrap();
    drop((buffer, clone));
    guard[3] = 9;
    assert_eq!(*guard, [1, 1, 1, 9]);
    assert_eq!(subject.device.info().memory_in_use, 16);
    drop(guard);
    assert_eq!(subject.device.info().memory_in_use, 0);
}

pub fn what_a_guard_writes_reaches_the_device(subject: &Subject) {
    let device = &subject.device;
    let (source, target) = (u32s(device, &[0; 3]), u32s(device, &[0; 3]));
    for round in 0..3 {
        source.write::<u32>().unwrap()[round] = 10;
        submit_add_one(device, &source, &target).unwrap().wait().unwrap();
        let expected: Vec<u32> = (0..3).map(|at| if at <= round { 11 } else { 1 }).collect();
        assert_eq!(*target.read::<u32>().unwrap(), expected);
    }
}

/// While a guard is held, work on other bytes of the storage sends what the host has written; the
/// guard's bytes are not among them, and must be sent later.
pub fn a_submission_beside_a_guard_loses_nothing(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1; 8]);
    let (left, right) = (buffer.slice_view(0, 4), buffer.slice_view(16, 4));
    let target = u32s(device, &[0; 4]);
    left.write::<u32>().unwrap().fill(5);
    let mut guard = left.write::<u32>().unwrap();
    guard[0] = 6;
    submit_add_one(device, &right, &target).unwrap().wait().unwrap();
    guard[1] = 7;
    drop(guard);
    submit_add_one(device, &left, &target).unwrap().wait().unwrap();
    assert_eq!(values(&target), [7, 8, 6, 6]);
}

pub fn host_and_device_writes_to_parts_are_merged(subject: &Subject) {
    let device = &subject.device;
    let mut buffer = u32s(device, &[0; 6]);
    let ones = u32s(device, &[1; 6]);
    submit_add_one(device, &ones.slice_view(0, 3), &buffer.slice_view(0, 3)).unwrap().wait().unwrap();
    buffer.as_mut_slice::<u32>().unwrap()[1] = 10;
    buffer.slice_view(16, 1).copy_from_slice(&[14_u32]).unwrap();
    submit_add_one(device, &ones.slice_view(0, 1), &buffer.slice_view(20, 1)).unwrap().wait().unwrap();
    assert_eq!(*buffer.read::<u32>().unwrap(), [2, 10, 2, 0, 14, 2]);
    let mut encoder = device.command_encoder().unwrap();
    dispatch(&mut encoder, &add_one(device), &[read(&buffer), write(&ones)], 6);
    encoder.fill_bytes(&buffer.slice_view(0, 1), 1).unwrap();
    encoder.commit_and_wait().unwrap();
    assert_eq!(values(&ones), [3, 11, 3, 1, 15, 3]);
    assert_eq!(values(&buffer), [0x0101_0101, 10, 2, 0, 14, 2]);
    let private = device.alloc_buffer_with(24, DType::U32, vec![6], StorageMode::Private).unwrap();
    submit_add_one(device, &buffer, &private).unwrap().wait().unwrap();
    assert_eq!(values(&private)[1..], [11, 3, 1, 15, 3]);
}

pub fn empty_views_conflict_with_nothing(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1; 8]);
    let empty: MlxBuffer = buffer.slice_view(16, 0);
    let guard = buffer.write::<u32>().unwrap();
    assert!(empty.read::<u32>().unwrap().is_empty());
    assert!(empty.write::<u32>().unwrap().is_empty());
    drop(guard);
    let held = empty.write::<u32>().unwrap();
    let kernel = crate::support::kernel(device, "nothing", anymlx::CpuKernel::whole(|_| Ok(())));
    submit(device, &kernel, &[read(&empty), write(&buffer)], 1).wait().unwrap();
    drop(held);
}

//! Slices and explicit moves.

use anymlx::{DType, read, write};

use crate::{
    subject::Subject,
    support::{Gate, assert_error, held, in_flight, invalid, u32s, values},
};

pub fn slices_are_exactly_the_logical_bytes(subject: &Subject) {
    let mut buffer = u32s(&subject.device, &[1, 2, 3, 4, 5]);
    let mut view = buffer.slice_view(4, 3);
    assert_eq!(view.as_slice::<u32>().unwrap(), [2, 3, 4]);
    assert_eq!(view.as_slice::<u8>().unwrap().len(), 12);
    assert_eq!(view.as_slice::<[u32; 3]>().unwrap(), [[2, 3, 4]]);
    view.as_mut_slice::<u32>().unwrap().copy_from_slice(&[20, 30, 40]);
    assert_eq!(buffer.as_mut_slice::<u32>().unwrap(), [1, 20, 30, 40, 5]);
    assert_eq!(view.read::<u32>().unwrap().len(), 3);
    assert_eq!(view.write::<u16>().unwrap().len(), 6);
}

pub fn slices_need_a_fitting_type(subject: &Subject) {
    let mut buffer = subject.device.alloc_buffer(36, DType::F32, vec![3, 3]).unwrap();
    assert_error(buffer.as_slice::<()>().map(|_| ()), invalid, &["as_slice", "no bytes"]);
    assert_error(buffer.as_slice::<[u8; 0]>().map(|_| ()), invalid, &["as_slice", "no bytes"]);
    assert_error(buffer.as_mut_slice::<()>().map(|_| ()), invalid, &["as_mut_slice", "no bytes"]);
    assert_error(buffer.read::<()>(), invalid, &["read", "no bytes"]);
    assert_error(buffer.write::<()>(), invalid, &["write", "no bytes"]);
    assert_error(buffer.to_vec::<()>(), invalid, &["to_vec", "no bytes"]);
    assert_error(buffer.as_slice::<u64>().map(|_| ()), invalid, &["as_slice", "36 bytes", "8 bytes"]);
    assert_error(buffer.as_mut_slice::<u64>().map(|_| ()), invalid, &["as_mut_slice", "36 bytes", "8 bytes"]);
    assert_error(buffer.to_vec::<u64>(), invalid, &["to_vec", "36 bytes", "8 bytes"]);
    let mut odd = buffer.slice_view(4, 8);
    assert_error(odd.as_slice::<u64>().map(|_| ()), invalid, &["as_slice", "byte 4", "aligned to 8"]);
    assert_error(odd.as_mut_slice::<u64>().map(|_| ()), invalid, &["as_mut_slice", "byte 4", "aligned to 8"]);
    assert_eq!(odd.to_vec::<u64>().unwrap(), [0; 4], "a copy needs no alignment");
}

pub fn slices_are_refused_in_flight(subject: &Subject) {
    let device = &subject.device;
    let (mut source, mut target) = (u32s(device, &[1; 4]), u32s(device, &[2; 4]));
    let gate = Gate::new(device);
    let submission = gate.enter(device, &[read(&source), write(&target.slice_view(0, 1))]);
    let number = submission.id().to_string();
    assert_eq!(source.as_slice::<u32>().unwrap(), [1; 4], "work that only reads leaves reading to the host");
    let refused = source.as_mut_slice::<u32>().map(|_| ());
    assert!(refused.as_ref().unwrap_err().is_transient());
    assert_error(refused, in_flight, &["as_mut_slice", &number, "wait"]);
    let elsewhere = target.slice_view(12, 1);
    assert_error(elsewhere.as_slice::<u32>().map(|_| ()), in_flight, &["as_slice", &number]);
    assert_error(target.as_mut_slice::<u32>().map(|_| ()), in_flight, &["as_mut_slice", &number]);
    gate.open();
    submission.wait().unwrap();
    assert_eq!(source.as_mut_slice::<u32>().unwrap(), [1; 4]);
    assert_eq!(target.as_slice::<u32>().unwrap(), [2; 4]);
}

pub fn bytes_move_in_and_out(subject: &Subject) {
    let buffer = u32s(&subject.device, &[1, 2, 3, 4]);
    buffer.slice_view(4, 2).copy_from_slice(&[20_u32, 30]).unwrap();
    assert_eq!(values(&buffer), [1, 20, 30, 4]);
    buffer.copy_from_slice(&[7_u8]).unwrap();
    assert_eq!(values(&buffer), [7, 20, 30, 4], "fewer bytes than the handle has");
    let refused = buffer.slice_view(4, 2).copy_from_slice(&[0_u32; 3]);
    assert_error(refused, invalid, &["copy_from_slice", "12 bytes", "8"]);
    assert_eq!(values(&buffer), [7, 20, 30, 4]);
}

pub fn moves_are_refused_in_flight_and_while_held(subject: &Subject) {
    let device = &subject.device;
    let (source, target) = (u32s(device, &[1; 4]), u32s(device, &[2; 4]));
    let gate = Gate::new(device);
    let submission = gate.enter(device, &[read(&source), write(&target)]);
    assert_eq!(values(&source), [1; 4]);
    assert_error(source.copy_from_slice(&[0_u32]), in_flight, &["write"]);
    assert_error(target.to_vec::<u32>(), in_flight, &["read"]);
    assert_error(target.copy_from_slice(&[0_u32]), in_flight, &["write"]);
    gate.open();
    submission.wait().unwrap();
    let reading = source.slice_view(4, 2).read::<u32>().unwrap();
    assert_eq!(values(&source), [1; 4]);
    assert_error(source.copy_from_slice(&[0_u32; 4]), held, &["write", "4..12", "read guard"]);
    source.copy_from_slice(&[9_u32]).unwrap();
    let writing = target.slice_view(4, 2).write::<u32>().unwrap();
    assert_error(target.to_vec::<u32>(), held, &["read", "4..12", "write guard"]);
    assert_eq!(values(&target.slice_view(12, 1)), [2]);
    assert_error(target.as_slice::<u32>().map(|_| ()), held, &["as_slice", "4..12"]);
    drop((reading, writing));
    assert_eq!(values(&source), [9, 1, 1, 1]);
}

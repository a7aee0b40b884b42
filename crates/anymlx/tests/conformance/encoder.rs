//! Recording and submitting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anymlx::{CpuKernel, DType, Kernel, Launch, MlxBuffer, MlxDevice, RawBuffer, read, read_write, write};

use crate::{
    subject::Subject,
    support::{
        Gate, add_one, assert_error, dispatch, eventually, invalid, kernel, launch, submit, submit_add_one, u32s,
        values,
    },
};

/// A kernel that counts its runs, except on a GPU; for `bindings` of them.
fn counting(device: &MlxDevice, bindings: usize) -> (Kernel, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let inside = Arc::clone(&runs);
    let cpu = CpuKernel::whole(move |_| {
        inside.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    (kernel(device, &format!("counting_{bindings}"), cpu), runs)
}

pub fn nothing_runs_before_commit(subject: &Subject) {
    let device = &subject.device;
    let (counting, runs) = counting(device, 0);
    let buffer = u32s(device, &[1; 4]);
    let mut encoder = device.command_encoder().unwrap();
    dispatch(&mut encoder, &counting, &[], 1);
    encoder.fill_bytes(&buffer, 9).unwrap();
    encoder.barrier().unwrap();
    device.synchronize();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(values(&buffer), [1; 4]);
    encoder.commit_and_wait().unwrap();
    assert!(subject.is_gpu() || runs.load(Ordering::SeqCst) == 1);
    assert_eq!(values(&buffer), [0x0909_0909; 4]);
}

pub fn a_dropped_encoder_abandons_its_commands(subject: &Subject) {
    let device = &subject.device;
    let (counting, runs) = counting(device, 1);
    let mut buffer = u32s(device, &[1; 4]);
    let mut encoder = device.command_encoder().unwrap();
    dispatch(&mut encoder, &counting, &[write(&buffer)], 1);
    encoder.fill_bytes(&buffer, 9).unwrap();
    drop(encoder);
    device.command_encoder().unwrap().commit_and_wait().unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(buffer.as_mut_slice::<u32>().unwrap(), [1; 4]);
}

pub fn encoding_after_commit_is_an_error(subject: &Subject) {
    let device = &subject.device;
    let (from, to) = (u32s(device, &[1; 4]), u32s(device, &[1; 4]));
    let mut encoder = device.command_encoder().unwrap();
    encoder.push_label("open").unwrap();
    encoder.commit_and_wait().unwrap();
    let add_one = add_one(device);
    let late = encoder.dispatch(&add_one, &[read(&from), write(&to)], &(), launch(4));
    assert_error(late, invalid, &["dispatch", "committed"]);
    assert_error(encoder.dispatch(&add_one, &[], &(), launch(0)), invalid, &["dispatch", "committed"]);
    assert_error(encoder.copy_bytes(&from, &to), invalid, &["copy", "committed"]);
    assert_error(encoder.fill_bytes(&to, 0), invalid, &["fill", "committed"]);
    assert_error(encoder.barrier(), invalid, &["barrier", "committed"]);
    assert_error(encoder.push_label("late"), invalid, &["push_label", "committed"]);
    assert_error(encoder.pop_label(), invalid, &["pop_label"]);
    assert_error(encoder.commit(), invalid, &["commit", "committed"]);
    assert_error(encoder.commit_and_wait(), invalid, &["commit", "committed"]);
    assert_eq!(values(&to), [1; 4]);
}

pub fn a_failed_commit_abandons_the_commands(subject: &Subject) {
    let device = &subject.device;
    let (first, second) = (u32s(device, &[1; 4]), u32s(device, &[1; 4]));
    let guard = second.read::<u32>().unwrap();
    let mut encoder = device.command_encoder().unwrap();
    encoder.fill_bytes(&first, 9).unwrap();
    encoder.fill_bytes(&second, 9).unwrap();
    assert_error(encoder.commit(), crate::support::held, &["submit", "read guard"]);
    drop(guard);
    assert_error(encoder.commit(), invalid, &["commit", "committed"]);
    first.clone().as_mut_slice::<u32>().expect("the refused work uses nothing")[0] = 2;
    assert_eq!(values(&first), [2, 1, 1, 1]);
    let submission = submit_add_one(device, &first, &second).unwrap();
    submission.wait().unwrap();
    assert_eq!(submission.id(), 1, "the refused work has no number");
    assert_eq!(values(&second), [3, 2, 2, 2]);
}

pub fn commands_see_what_earlier_ones_wrote(subject: &Subject) {
    let device = &subject.device;
    let add_one = add_one(device);
    let (a, b) = (u32s(device, &[0; 231]), u32s(device, &[0; 231]));
    let mut encoder = device.command_encoder().unwrap();
    for _ in 0..50 {
        dispatch(&mut encoder, &add_one, &[read(&a), write(&b)], 231);
        dispatch(&mut encoder, &add_one, &[read(&b), write(&a)], 231);
    }
    encoder.copy_bytes(&a.slice_view(0, 100), &b.slice_view(131 * 4, 100)).unwrap();
    encoder.fill_bytes(&a.slice_view(0, 1), 0).unwrap();
    let first = encoder.commit().unwrap();
    let second = submit_add_one(device, &b, &a).unwrap();
    second.wait().unwrap();
    first.wait().unwrap();
    assert_eq!(values(&b), [vec![99; 131], vec![100; 100]].concat());
    assert_eq!(values(&a), [vec![100; 131], vec![101; 100]].concat());
}

pub fn a_written_buffer_is_bound_once(subject: &Subject) {
    let device = &subject.device;
    let add_one = add_one(device);
    let buffer = u32s(device, &[1; 8]);
    let mut encoder = device.command_encoder().unwrap();
    let mut refused = |from: &MlxBuffer, to: &MlxBuffer| {
        let result = encoder.dispatch(&add_one, &[read(from), write(to)], &(), launch(4));
        assert_error(result, invalid, &["dispatch", "bindings 0 and 1 overlap"]);
        assert_error(encoder.copy_bytes(from, to), invalid, &["copy", "overlap"]);
    };
    refused(&buffer, &buffer.clone());
    refused(&buffer.slice_view(0, 5), &buffer.slice_view(12, 5));
    refused(&buffer.with_shape([2, 4]).unwrap(), &buffer);
    let foreign = |memory: &mut [u32]| {
        // SAFETY: the memory outlives the handles, and only the handles use it.
        let raw = unsafe { RawBuffer::from_host(device, memory.as_mut_ptr().cast(), size_of_val(memory), None) };
        MlxBuffer::from_raw(raw.unwrap(), DType::U32, vec![memory.len()])
    };
    let mut memory = [1_u32; 8];
    if subject.is_unified() {
        let (first, second) = (foreign(&mut memory[..4]), foreign(&mut memory[2..6]));
        refused(&first, &second);
        refused(&second, &first);
    }
    dispatch(&mut encoder, &add_one, &[read(&buffer.slice_view(0, 4)), write(&buffer.slice_view(16, 4))], 4);
    let sum = kernel(
        device,
        "double_into",
        CpuKernel::whole(|arguments| {
            let doubled: Vec<u32> =
                arguments.input(0).iter().zip(arguments.input(1)).map(|(a, b): (&u32, &u32)| a + b).collect();
            arguments.output::<u32>(2).iter_mut().zip(doubled).for_each(|(to, value)| *to += value);
            Ok(())
        }),
    );
    let (left, right) = (buffer.slice_view(0, 4), buffer.slice_view(16, 4));
    dispatch(&mut encoder, &sum, &[read(&left), read(&left), read_write(&right)], 1);
    encoder.commit_and_wait().unwrap();
    assert_eq!(values(&buffer), [1, 1, 1, 1, 4, 4, 4, 4]);
}

pub fn copies_and_fills(subject: &Subject) {
    let device = &subject.device;
    let numbers: Vec<u32> = (0..300_001).collect();
    let (from, to) = (u32s(device, &numbers), u32s(device, &vec![0; 300_001]));
    let mut encoder = device.command_encoder().unwrap();
    assert_error(encoder.copy_bytes(&from, &to.slice_view(0, 7)), invalid, &["copy", "1200004 bytes", "28 bytes"]);
    encoder.copy_bytes(&from, &to).unwrap();
    encoder.copy_bytes(&to.slice_view(0, 33), &to.slice_view(400, 33)).unwrap();
    encoder.copy_bytes(&from.slice_view(0, 0), &to.slice_view(0, 0)).unwrap();
    encoder.fill_bytes(&to.slice_view(8, 2), 0xff).unwrap();
    encoder.fill_bytes(&to.slice_view(8, 0), 1).unwrap();
    encoder.fill_bytes(&from, 7).unwrap();
    encoder.commit_and_wait().unwrap();
    let mut expected = numbers;
    expected.copy_within(0..33, 100);
    expected[2..4].fill(u32::MAX);
    assert!(values(&to) == expected);
    assert!(values(&from) == vec![0x0707_0707; 300_001]);
}

pub fn groups_are_balanced(subject: &Subject) {
    let device = &subject.device;
    let mut encoder = device.command_encoder().unwrap();
    assert_error(encoder.pop_label(), invalid, &["pop_label", "push_label"]);
    encoder.push_label("outer").unwrap();
    encoder.push_label("inner").unwrap();
    encoder.pop_label().unwrap();
    encoder.pop_label().unwrap();
    assert_error(encoder.pop_label(), invalid, &["pop_label"]);
    encoder.push_label("left open").unwrap();
    encoder.commit_and_wait().unwrap();
}

pub fn labels_and_numbers_identify_submissions(subject: &Subject) {
    let device = &subject.device;
    let first = device.command_encoder().unwrap().commit().unwrap();
    let second = device.command_encoder_labeled("prefill").unwrap().commit().unwrap();
    let third = device.command_encoder_labeled("prefill").unwrap().commit_labeled("decode").unwrap();
    assert_eq!([first.label(), second.label(), third.label()], ["commands", "prefill", "decode"]);
    assert_eq!([first.id(), second.id(), third.id()], [1, 2, 3]);
    third.wait().unwrap();
    assert!(first.is_done() && second.is_done() && third.is_done());
    device.command_encoder().unwrap().commit_and_wait_labeled("last").unwrap();
}

pub fn objects_of_another_device_are_refused(subject: &Subject) {
    let (device, other) = (&subject.device, subject.another());
    assert!(device.same_device(&device.clone()) && !device.same_device(&other));
    let (own, foreign) = (u32s(device, &[1; 4]), u32s(&other, &[1; 4]));
    assert!(own.is_on(device) && !own.is_on(&other));
    let (add_one, foreign_kernel) = (add_one(device), add_one(&other));
    let mut encoder = device.command_encoder().unwrap();
    let result = encoder.dispatch(&foreign_kernel, &[read(&own)], &(), launch(1));
    assert_error(result, invalid, &["dispatch", "add_one", "another device"]);
    let result = encoder.dispatch(&add_one, &[read(&own), write(&foreign)], &(), launch(1));
    assert_error(result, invalid, &["dispatch", "another device"]);
    assert_error(encoder.copy_bytes(&foreign, &own), invalid, &["copy", "another device"]);
    assert_error(encoder.fill_bytes(&foreign, 0), invalid, &["fill", "another device"]);
    encoder.commit_and_wait().unwrap();
    assert_eq!(values(&own), [1; 4]);
}

pub fn launches_without_work_do_nothing(subject: &Subject) {
    let device = &subject.device;
    let (counting, runs) = counting(device, 0);
    let mut encoder = device.command_encoder().unwrap();
    encoder.dispatch(&counting, &[], &(), Launch::default()).unwrap();
    encoder.dispatch(&counting, &[], &(), launch(0)).unwrap();
    let (forgotten, needed) = match subject.is_gpu() {
        true => (Launch { groups: [0, 1, 1], ..launch(4) }, "groups"),
        false => (Launch { items: 0, ..launch(4) }, "work items"),
    };
    assert_error(encoder.dispatch(&counting, &[], &(), forgotten), invalid, &["dispatch", "counting", needed]);
    encoder.commit_and_wait().unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    submit(device, &counting, &[], 1_000_000).wait().unwrap();
    assert!(subject.is_gpu() || runs.load(Ordering::SeqCst) == 1, "once for each dispatch, however many items");
}

pub fn submissions_in_flight_are_bounded(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[0]);
    let gate = Gate::new(device);
    gate.enter(device, &[]);
    let submitted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                let mut encoder = device.command_encoder().unwrap();
                encoder.fill_bytes(&buffer, 1).unwrap();
                encoder.commit().unwrap();
                submitted.fetch_add(1, Ordering::SeqCst);
            }
        });
        eventually("some fit", || submitted.load(Ordering::SeqCst) >= 32);
        std::thread::sleep(Duration::from_millis(50));
        assert!(submitted.load(Ordering::SeqCst) <= 64, "{submitted:?}");
        gate.open();
    });
    device.synchronize();
    assert_eq!(values(&buffer), [0x0101_0101]);
}

pub fn timing_covers_the_work(subject: &Subject) {
    let device = &subject.device;
    let sleeping = kernel(
        device,
        "sleeping",
        CpuKernel::whole(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        }),
    );
    let first = submit(device, &sleeping, &[], 1);
    let second = submit(device, &sleeping, &[], 1);
    let (first, second) = (first.wait().unwrap(), second.wait().unwrap());
    assert!(first.execution >= Duration::from_millis(20) && second.execution >= Duration::from_millis(20));
    assert!(second.queued >= Duration::from_millis(15), "it waited for the first: {second:?}");
}

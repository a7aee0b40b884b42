//! Failures: where they surface, what they poison, what heals.

use std::{
    io::Write,
    panic::panic_any,
    sync::atomic::{AtomicUsize, Ordering},
};

use anymlx::{CpuKernel, Kernel, MlxBuffer, MlxDevice, Submission, WholeArguments, read, read_write, write};

use crate::{
    subject::Subject,
    support::{
        Gate, add_one, assert_error, dispatch, failed, invalid, kernel, poisoned, submit, submit_add_one, u32s, values,
    },
};

/// What [`failing`] reports: the text of a GPU's fault without a text of its own.
const FAULT: &str = "fault 77 (5, 0, 0)";

fn failing(device: &MlxDevice, bindings: usize) -> Kernel {
    kernel(device, &format!("failing_{bindings}"), CpuKernel::whole(|_| Err(FAULT.into())))
}

/// Work that would write `target`, and fails.
fn fail(device: &MlxDevice, target: &MlxBuffer) -> Submission {
    device.fail_next_submission("the power went").unwrap();
    let mut encoder = device.command_encoder_labeled("step 7").unwrap();
    encoder.fill_bytes(target, 1).unwrap();
    encoder.commit().unwrap()
}

pub fn an_injected_failure_surfaces_at_wait_with_the_label(subject: &Subject) {
    let device = &subject.device;
    let submission = fail(device, &u32s(device, &[1; 4]));
    for _ in 0..2 {
        assert_error(submission.wait(), failed, &["step 7", "the power went"]);
        assert!(submission.is_done());
    }
    assert!(!submission.wait().unwrap_err().is_transient());
    device.command_encoder().unwrap().commit_and_wait().expect("one failure was asked for");
}

pub fn failing_and_panicking_kernels_fail_their_submission(subject: &Subject) {
    if subject.is_gpu() {
        return eprintln!("skipped: no Rust functions run on a GPU");
    }
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("a payload that panics");
        }
    }
    fn partitioned(invocation: &anymlx::Invocation<'_>) -> anymlx::KernelResult {
        assert!(!invocation.items().contains(&5_000), "item 5000 is bad");
        Ok(())
    }
    type Body = fn(&mut WholeArguments<'_>) -> anymlx::KernelResult;
    let bodies: [(&str, Body, &str); 6] = [
        ("returning", |_| Err("token 5 is out of range".into()), "token 5 is out of range"),
        ("panicking", |_| panic!("boom"), "boom"),
        ("panicking_with_text", |_| panic!("boom {}", 2), "boom 2"),
        ("panicking_oddly", |_| panic_any(5_u8), "panicked"),
        ("panicking_twice", |_| panic_any(PanicsOnDrop), "panicked"),
        (
            "out_of_bounds",
            |arguments| {
                arguments.output::<u32>(7);
                Ok(())
            },
            "out of bounds",
        ),
    ];
    let device = &subject.device;
    let target = u32s(device, &[1; 4]);
    let mut kernels: Vec<_> =
        bodies.map(|(name, body, text)| (kernel(device, name, CpuKernel::whole(body)), text)).into();
    // SAFETY: nothing is written.
    kernels.push((kernel(device, "partly", unsafe { CpuKernel::partitioned(partitioned) }), "item 5000 is bad"));
    for (kernel, text) in &kernels {
        let mut encoder = device.command_encoder_labeled("step 8").unwrap();
        encoder.push_label("layer 3").unwrap();
        dispatch(&mut encoder, kernel, &[write(&target)], 10_000);
        let submission = encoder.commit().unwrap();
        assert_error(submission.wait(), failed, &["step 8", "layer 3", kernel.name(), text]);
        assert_error(target.to_vec::<u32>(), poisoned, &["step 8", text]);
    }
    submit_add_one(device, &u32s(device, &[1; 4]), &target).unwrap().wait().unwrap();
    assert_eq!(values(&target), [2; 4], "the device goes on");
}

pub fn poisoned_bytes_are_refused_until_written(subject: &Subject) {
    let device = &subject.device;
    let mut heal: Vec<fn(&mut MlxBuffer, &MlxDevice)> = vec![
        |buffer, _| buffer.as_mut_slice::<u32>().unwrap().fill(3),
        |buffer, _| buffer.write::<u32>().unwrap().fill(3),
        |buffer, _| buffer.copy_from_slice(&[3_u32; 4]).unwrap(),
        |buffer, device| {
            submit_add_one(device, &u32s(device, &[2; 4]), buffer).unwrap();
        },
    ];
    for heal in heal.drain(..) {
        let mut buffer = u32s(device, &[1; 8]);
        let mut target = buffer.slice_view(8, 4);
        fail(device, &target).wait().unwrap_err();
        let parts = ["8..24", "poisoned", "step 7", "the power went", "write them again"];
        assert_error(target.as_slice::<u32>().map(|_| ()), poisoned, &parts);
        assert_error(buffer.read::<u32>(), poisoned, &parts);
        assert_error(buffer.to_vec::<u32>(), poisoned, &parts);
        let refused = submit_add_one(device, &target, &u32s(device, &[0; 4]));
        assert!(!refused.as_ref().unwrap_err().is_transient());
        assert_error(refused, poisoned, &["submit", "8..24", "the power went"]);
        assert_error(submit(device, &add_one(device), &[], 0).wait().and_then(|_| buffer.read::<u32>()), poisoned, &[]);
        assert_eq!(values(&buffer.slice_view(0, 2)), [1; 2], "what the work would not have written is whole");
        heal(&mut target, device);
        device.synchronize();
        assert_eq!(values(&buffer), [1, 1, 3, 3, 3, 3, 1, 1]);
        buffer.as_mut_slice::<u32>().unwrap()[0] = 2;
    }
}

pub fn writing_heals_exactly_what_was_written(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1; 8]);
    fail(device, &buffer).wait().unwrap_err();
    buffer.slice_view(8, 2).copy_from_slice(&[5_u32, 6]).unwrap();
    assert_eq!(values(&buffer.slice_view(8, 2)), [5, 6]);
    assert_error(buffer.slice_view(4, 2).to_vec::<u32>(), poisoned, &["0..8"]);
    assert_error(buffer.slice_view(12, 2).to_vec::<u32>(), poisoned, &["16..32"]);
    let mut encoder = device.command_encoder().unwrap();
    encoder.fill_bytes(&buffer.slice_view(0, 2), 0).unwrap();
    encoder.commit_and_wait().unwrap();
    assert_eq!(values(&buffer.slice_view(0, 4)), [0, 0, 5, 6]);
    assert_error(buffer.read::<u32>(), poisoned, &["16..32"]);
    buffer.slice_view(16, 4).write::<u32>().unwrap().fill(9);
    assert_eq!(values(&buffer), [0, 0, 5, 6, 9, 9, 9, 9]);
}

pub fn a_refused_guard_heals_nothing(subject: &Subject) {
    let device = &subject.device;
    let buffer = u32s(device, &[1; 8]);
    fail(device, &buffer).wait().unwrap_err();
    let mut odd = buffer.slice_view(4, 4);
    assert_error(odd.write::<u64>(), invalid, &["aligned"]);
    assert_error(odd.as_mut_slice::<u64>().map(|_| ()), invalid, &["aligned"]);
    assert_error(odd.write::<[u8; 3]>(), invalid, &["16 bytes"]);
    assert_error(odd.read::<u32>(), poisoned, &["0..32"]);
    assert_error(buffer.slice_view(0, 4).copy_from_slice(&[0_u32; 5]), invalid, &["20 bytes"]);
    assert_error(buffer.slice_view(0, 1).read::<u32>(), poisoned, &["0..32"]);
}

pub fn queued_work_that_depends_on_a_failure_fails_too(subject: &Subject) {
    let device = &subject.device;
    let failing = failing(device, 2);
    let buffers: Vec<MlxBuffer> = (0..5).map(|_| u32s(device, &[1; 4])).collect();
    let [source, first, second, third, apart] = &buffers[..] else { unreachable!() };
    let gate = Gate::new(device);
    gate.enter(device, &[]);
    let cause = submit(device, &failing, &[read(source), write(first)], 1);
    let direct = submit_add_one(device, first, second).unwrap();
    let indirect = submit_add_one(device, second, third).unwrap();
    let independent = submit_add_one(device, source, apart).unwrap();
    let unrelated_part = submit_add_one(device, apart, &source.slice_view(0, 4)).unwrap();
    gate.open();
    unrelated_part.wait().unwrap();
    independent.wait().unwrap();
    assert_error(indirect.wait(), failed, &["earlier work", FAULT]);
    assert_error(direct.wait(), failed, &["earlier work", FAULT]);
    // A GPU does not tell which of a submission's kernels reported a fault.
    assert_error(cause.wait(), failed, &[if subject.is_gpu() { "commands" } else { "failing_2" }, FAULT]);
    for buffer in [first, second, third] {
        assert_error(buffer.to_vec::<u32>(), poisoned, &[FAULT]);
    }
    assert_eq!((values(apart), values(source)), (vec![2; 4], vec![3; 4]));
}

pub fn work_that_overwrites_a_failure_heals_it(subject: &Subject) {
    let device = &subject.device;
    let failing = failing(device, 1);
    let (source, target) = (u32s(device, &[1; 4]), u32s(device, &[1; 4]));
    let gate = Gate::new(device);
    gate.enter(device, &[]);
    let cause = submit(device, &failing, &[write(&target)], 1);
    // The first command writes what the second one reads: nothing poisoned is read.
    let mut encoder = device.command_encoder().unwrap();
    dispatch(&mut encoder, &add_one(device), &[read(&source), write(&target)], 4);
    dispatch(&mut encoder, &add_one(device), &[read(&target), write(&source)], 4);
    let repair = encoder.commit().unwrap();
    let after = submit_add_one(device, &source, &target).unwrap();
    gate.open();
    cause.wait().unwrap_err();
    repair.wait().unwrap();
    after.wait().unwrap();
    assert_eq!((values(&source), values(&target)), (vec![3; 4], vec![4; 4]));
}

pub fn a_failing_replay_can_be_repeated(subject: &Subject) {
    let device = &subject.device;
    const MOOD: &str = "fault 78 (1, 0, 0)";
    let moody = kernel(
        device,
        "moody",
        CpuKernel::whole(|arguments| {
            if arguments.input::<u32>(0)[0] < 5 {
                return Err(MOOD.into());
            }
            arguments.output::<u32>(0).iter_mut().for_each(|value| *value += 1);
            Ok(())
        }),
    );
    let (state, output) = (u32s(device, &[1; 4]), u32s(device, &[0; 4]));
    let graph = device
        .record_labeled("decode", |encoder| {
            encoder.dispatch(&moody, &[read_write(&state)], &(), crate::support::launch(1))?;
            encoder.copy_bytes(&state, &output)
        })
        .unwrap();
    let name = if subject.is_gpu() { "decode" } else { "moody" };
    assert_error(graph.replay().unwrap().wait(), failed, &["decode", name, MOOD]);
    assert_error(graph.replay(), poisoned, &["submit", MOOD]);
    state.copy_from_slice(&[5_u32; 4]).unwrap();
    assert_error(output.to_vec::<u32>(), poisoned, &[MOOD]);
    graph.replay().unwrap().wait().unwrap();
    assert_eq!((values(&state), values(&output)), (vec![6; 4], vec![6; 4]));
    device.fail_next_submission("the power went").unwrap();
    assert_error(graph.replay().unwrap().wait(), failed, &["decode", "the power went"]);
    assert_error(output.to_vec::<u32>(), poisoned, &["the power went"]);
}

pub fn kernels_cannot_write_what_they_declare_as_read(subject: &Subject) {
    if subject.is_gpu() {
        return eprintln!("skipped: a GPU does not watch what its kernels write");
    }
    let device = &subject.device;
    let writing = kernel(
        device,
        "writing",
        CpuKernel::whole(|arguments| {
            arguments.output::<u8>(0).fill(0xff);
            Ok(())
        }),
    );
    let buffer = u32s(device, &[1; 4]);
    assert_error(submit(device, &writing, &[read(&buffer)], 1).wait(), failed, &["binding 0", "read only"]);
    assert_eq!(values(&buffer), [1; 4]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 64]).unwrap();
    let mapped = device.map_file(file.path()).unwrap();
    assert_error(submit(device, &writing, &[read(&mapped)], 1).wait(), failed, &["binding 0", "read only"]);
    assert_eq!(mapped.as_slice::<u8>().unwrap(), [7; 64]);
}

pub fn a_panic_leaves_the_threads_in_step(subject: &Subject) {
    if subject.is_gpu() {
        return eprintln!("skipped: no Rust functions run on a GPU");
    }
    let device = &subject.device;
    static FAIL_AT: AtomicUsize = AtomicUsize::new(usize::MAX);
    fn run(invocation: &anymlx::Invocation<'_>) -> anymlx::KernelResult {
        let input = invocation.input::<u32>(0);
        // SAFETY: item `i` is element `i`.
        let output = unsafe { invocation.output::<u32>(1, invocation.items()) };
        for (output, item) in output.iter_mut().zip(invocation.items()) {
            assert_ne!(input[item] as usize * 100 + item, FAIL_AT.load(Ordering::SeqCst), "as asked");
            *output = input[item] + 1;
        }
        Ok(())
    }
    // SAFETY: each item writes its own element of binding 1.
    let stepping = kernel(device, "stepping", unsafe { CpuKernel::partitioned(run) });
    let (a, b) = (u32s(device, &[0; 64]), u32s(device, &[0; 64]));
    let steps = |fail_at: usize| {
        FAIL_AT.store(fail_at, Ordering::SeqCst);
        a.copy_from_slice(&[0_u32; 64]).unwrap();
        let mut encoder = device.command_encoder().unwrap();
        for _ in 0..5 {
            dispatch(&mut encoder, &stepping, &[read(&a), write(&b)], 64);
            dispatch(&mut encoder, &stepping, &[read(&b), write(&a)], 64);
        }
        encoder.commit_and_wait()
    };
    for round in 0..20 {
        // Step `round % 10`, some item in the middle.
        assert_error(steps(round % 10 * 100 + 3 * round), failed, &["stepping", "as asked"]);
        steps(usize::MAX).unwrap();
        assert_eq!(values(&a), [10; 64], "round {round}");
    }
}

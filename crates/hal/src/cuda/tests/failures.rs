//! What fails, and who is told.

use super::{device, failure, floats, kernel, read, submit_one};
use crate::{
    HalError,
    backend::{Device as _, KernelSource, Pending as _, StorageMode},
    dialect,
};

fn failed_label(error: &HalError) -> &str {
    match error {
        HalError::SubmissionFailed { label, .. } => label,
        other => panic!("{other}"),
    }
}

#[test]
fn injected_failures_hit_the_next_submission_alone() {
    let Some(device) = device() else { return };
    let (spin, x) = (kernel(&device, "spin"), floats(&device, &[0.0]));
    let before = submit_one(&device, "before", &spin, &x, 1000);
    assert!(device.fail_next_submission("made up"));
    let hit = submit_one(&device, "hit", &spin, &x, 7);
    let after = submit_one(&device, "after", &spin, &x, 8);
    let error = failure(hit.wait());
    assert!(failed_label(&error) == "hit" && error.to_string().contains("made up"), "{error}");
    assert!(hit.poll().expect("ended").is_err(), "the outcome stays");
    before.wait().expect("not hit");
    after.wait().expect("not hit");
    assert_eq!(read::<u32>(&device, &x), [8]);
}

#[test]
fn faults_fail_their_own_submission_and_leave_the_device_alone() {
    let Some(device) = device() else { return };
    let (spin, report) = (kernel(&device, "spin"), kernel(&device, "report"));
    let (x, y) = (floats(&device, &[0.0]), floats(&device, &[0.0]));
    // More than there are words for, so that words are used again.
    for round in 0..20 {
        let labels: Vec<_> = (0..6).map(|at| format!("{round}-{at}")).collect();
        let submit = |at: usize| {
            let (kernel, count) = if at == 2 || at == 5 { (&report, at as u32) } else { (&spin, 100) };
            submit_one(&device, &labels[at], kernel, if at.is_multiple_of(2) { &x } else { &y }, count)
        };
        let pending: Vec<_> = (0..6).map(submit).collect();
        for (at, pending) in pending.iter().enumerate() {
            match pending.wait() {
                Ok(_) => assert!(at != 2 && at != 5, "{at} reported a fault"),
                Err(error) => {
                    assert_eq!(failed_label(&error), labels[at]);
                    assert!(error.to_string().contains(&dialect::fault_message([70 + at as u32, 1, 2, 3])), "{error}");
                }
            }
        }
    }
    assert_eq!(device.lost(), None);
}

/// In a process of its own: what an illegal address leaves behind is the driver's affair.
#[test]
#[ignore = "run by the test below"]
fn illegal_address_child() {
    let Some(device) = device() else { return };
    let other = super::device().expect("a second context");
    let (spin, stray) = (kernel(&device, "spin"), kernel(&device, "stray"));
    let (other_spin, z) = (kernel(&other, "spin"), floats(&other, &[0.0]));
    let (x, y) = (floats(&device, &[0.0]), floats(&device, &[0.0]));
    let before = submit_one(&device, "before", &spin, &x, 20_000);
    let stray = submit_one(&device, "astray", &stray, &y, 4096);
    let after = submit_one(&device, "after", &spin, &x, 10);
    // Asked in the wrong order.
    let after = failure(after.wait());
    assert!(matches!(after, HalError::DeviceLost { .. }), "{after}");
    let error = failure(stray.wait());
    assert_eq!(failed_label(&error), "astray");
    eprintln!("{error}\n{after}");
    before.wait().expect("ended before the failure");
    assert!(device.lost().is_some());
    let lost = |result: crate::Result<()>| assert!(matches!(result, Err(HalError::DeviceLost { .. })), "{result:?}");
    lost(device.encoder().map(drop));
    lost(device.allocate(8, StorageMode::Shared).map(drop));
    lost(device.upload(&x, 0, &[0; 4]));
    lost(device.download(&x, 0, &mut [0; 4]));
    lost(device.compile(&KernelSource { name: "spin", gpu: super::TEXT, cpu: None }).map(drop));
    let apart = submit_one_fallible(&other, &other_spin, &z);
    eprintln!("another context that was open: {apart:?}");
    drop((x, y, spin, device));
    let anew = super::super::Device::open(&Default::default());
    eprintln!("opened anew with the other context open: {:?}", anew.as_ref().map(|_| ()).map_err(ToString::to_string));
    let worked = anew.is_ok_and(|anew| works(&anew));
    drop((z, other_spin, other));
    let anew = super::super::Device::open(&Default::default());
    eprintln!("opened anew with nothing open: {:?}", anew.as_ref().map(|_| ()).map_err(ToString::to_string));
    assert!(worked || anew.is_ok_and(|anew| works(&anew)), "the GPU cannot be opened anew");
}

fn submit_one_fallible(device: &super::Device, kernel: &super::Kernel, buffer: &super::Buffer) -> crate::Result<()> {
    use crate::backend::Encoder as _;
    let mut encoder = device.encoder()?;
    let args = super::Args { amount: 1.0, count: 5 };
    let bindings = [super::bound(buffer, crate::Access::Write)];
    encoder.dispatch(kernel, &bindings, bytemuck::bytes_of(&args), super::launch(1, 32), "apart")?;
    device.submit(encoder, "apart")?.wait().map(drop)
}

fn works(device: &super::Device) -> bool {
    let (spin, x) = (kernel(device, "spin"), floats(device, &[0.0]));
    submit_one(device, "anew", &spin, &x, 77).wait().expect("runs");
    read::<u32>(device, &x) == [77]
}

#[test]
fn an_illegal_address_is_told_with_the_label_and_the_gpu_opens_anew() {
    let program = std::env::current_exe().expect("this test program");
    let arguments = ["--exact", "cuda::tests::failures::illegal_address_child", "--ignored", "--nocapture"];
    let output = std::process::Command::new(program).args(arguments).output().expect("runs");
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

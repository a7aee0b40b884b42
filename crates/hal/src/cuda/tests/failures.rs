//! What fails, and who is told.

use super::{CudaOptions, Device, device, failure, floats, kernel, read, submit_one};
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
    go_astray(device);
    // Nothing of CUDA is open any more.
    match super::super::Device::open(&CudaOptions::default()) {
        Ok(anew) => {
            let (spin, x) = (kernel(&anew, "spin"), floats(&anew, &[0.0]));
            submit_one(&anew, "anew", &spin, &x, 77).wait().expect("runs");
            assert_eq!(read::<u32>(&anew, &x), [77]);
            eprintln!("opened anew");
        }
        Err(error) => {
            eprintln!("not opened anew: {error}");
            assert!(error.to_string().contains("restart the program"), "{error}");
        }
    }
}

fn go_astray(device: Device) {
    let (spin, stray) = (kernel(&device, "spin"), kernel(&device, "stray"));
    let (x, y) = (floats(&device, &[0.0]), floats(&device, &[0.0]));
    let before = submit_one(&device, "before", &spin, &x, 20_000);
    let astray = submit_one(&device, "astray", &stray, &y, 4096);
    let after = submit_one(&device, "after", &spin, &x, 10);
    // Asked in the wrong order.
    let after = failure(after.wait());
    assert!(matches!(after, HalError::DeviceLost { .. }), "{after}");
    let error = failure(astray.wait());
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
}

#[test]
fn an_illegal_address_is_told_with_the_label_and_the_process_goes_on() {
    let program = std::env::current_exe().expect("this test program");
    let arguments = ["--exact", "cuda::tests::failures::illegal_address_child", "--ignored", "--nocapture"];
    let output = std::process::Command::new(program).args(arguments).output().expect("runs");
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

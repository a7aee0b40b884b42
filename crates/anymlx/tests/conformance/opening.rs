//! Opening devices.

use anymlx::{BackendKind, CpuDeviceOptions, DeviceSelector, MlxDevice};

use crate::support::{absent, assert_error, invalid, u32s, values};

#[test]
fn the_processor_is_always_there() {
    let device = MlxDevice::cpu().unwrap();
    assert!(device.same_device(&MlxDevice::cpu().unwrap()), "all calls share one device");
    let info = device.info();
    assert_eq!((info.backend, info.unified), (BackendKind::Cpu, true));
    assert!(info.memory_total > 0 && info.memory_free <= info.memory_total && info.compute_units > 0);
    assert!(info.max_buffer_bytes > 0 && !device.name().is_empty());
    assert_eq!(device.name(), info.name);
    let listed = MlxDevice::available();
    assert_eq!(listed.last().map(|info| info.backend), Some(BackendKind::Cpu), "the processor is the last resort");
    assert!(!device.residency_sets_enabled(), "page locking is off by default");
}

#[test]
fn absent_devices_are_named() {
    for (selector, name) in [(DeviceSelector::Cuda(99), "cuda:99"), (DeviceSelector::Metal, "metal")] {
        match MlxDevice::open(selector) {
            Ok(device) => eprintln!("skipped: {name} is present: {device:?}"),
            result => assert_error(result, absent, &["device not found", name]),
        }
    }
    assert!(MlxDevice::open(DeviceSelector::Cpu).is_ok());
}

#[test]
fn selectors_are_checked() {
    let good = [
        ("cpu", DeviceSelector::Cpu),
        ("cuda", DeviceSelector::Cuda(0)),
        ("cuda:3", DeviceSelector::Cuda(3)),
        ("metal", DeviceSelector::Metal),
    ];
    for (text, selector) in good {
        assert_eq!(text.parse::<DeviceSelector>().unwrap(), selector);
    }
    for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "CPU"] {
        assert_error(text.parse::<DeviceSelector>(), invalid, &["device", &format!("`{text}`"), "cpu", "metal"]);
    }
}

#[test]
fn thread_counts_are_checked() {
    for threads in [0, 1025] {
        let options = CpuDeviceOptions { threads: Some(threads), ..CpuDeviceOptions::default() };
        assert_error(MlxDevice::cpu_with(&options), invalid, &[&threads.to_string(), "1..=1024"]);
    }
}

#[test]
fn resident_memory_can_be_locked() {
    let options = CpuDeviceOptions { threads: Some(1), lock_memory: true, ..CpuDeviceOptions::default() };
    let device = MlxDevice::cpu_with(&options).unwrap();
    assert!(device.residency_sets_enabled());
    let buffer = u32s(&device, &[1; 2000]);
    device.command_encoder().unwrap().commit_and_wait().unwrap();
    assert_eq!(values(&buffer), [1; 2000]);
}

/// Not a test by itself: the process that [`the_environment_chooses_the_device`] starts.
#[test]
#[ignore = "run by another test, with an environment of its own"]
fn open_the_default_device() {
    match MlxDevice::new() {
        Ok(device) => println!("opened {:?}", device.info().backend),
        Err(error) => println!("refused: {error}"),
    }
}

#[test]
fn the_environment_chooses_the_device() {
    let outcome = |value: Option<&str>| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "opening::open_the_default_device", "--ignored", "--nocapture"]);
        match value {
            Some(value) => command.env("ANYMLX_DEVICE", value),
            None => command.env_remove("ANYMLX_DEVICE"),
        };
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let expect = |value: Option<&str>, part: &str| {
        let text = outcome(value);
        assert!(text.contains(part), "{value:?}: {text}");
    };
    expect(Some("cpu"), "opened Cpu");
    expect(Some("cuda:99"), "refused: device not found: cuda:99");
    expect(Some("toaster"), "refused: ");
    expect(None, "opened ");
}

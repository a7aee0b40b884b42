//! The devices on which every operation is tested.

use crate::{CpuDeviceOptions, CpuLevel, MlxDevice, TraceOptions};

/// One CPU device for each instruction level that this processor has, the recording backend with
/// memory of its own, and every GPU present.
pub(crate) fn devices() -> Vec<MlxDevice> {
    let mut devices = Vec::new();
    for level in CpuLevel::ALL {
        if !level.is_supported() {
            eprintln!("skipped: cpu {level}: this processor lacks it");
            continue;
        }
        let options = CpuDeviceOptions { threads: Some(2), level: Some(level), ..CpuDeviceOptions::default() };
        devices.push(MlxDevice::cpu_with(&options).expect("a supported level opens"));
    }
    let options = TraceOptions { unified: false, ..TraceOptions::default() };
    devices.push(MlxDevice::trace(&options).expect("the recording backend opens"));
    match MlxDevice::cuda(0) {
        Ok(device) => devices.push(device),
        Err(error) => eprintln!("skipped: cuda: {error}"),
    }
    match MlxDevice::metal() {
        Ok(device) => devices.push(device),
        Err(error) => eprintln!("skipped: metal: {error}"),
    }
    devices
}

//! The devices on which every operation is tested.

use std::sync::OnceLock;

use crate::{
    CpuDeviceOptions, CpuLevel, EmulatorOptions, MetalOptions, MlxDevice, RecorderOptions, Result, Run, Sanitizer,
    Schedule, TraceOptions, Watcher,
    env::{self, EmulatorMode},
};

/// One CPU device for each instruction level that this processor has, the recording backend with
/// memory of its own, the emulator of GPUs, and every GPU present. With `ANYMLX_EMULATOR=watched` the emulator alone.
pub(crate) fn devices() -> Vec<MlxDevice> {
    let mut devices = Vec::new();
    if env::emulator().expect("ANYMLX_EMULATOR") == Some(EmulatorMode::Watched) {
        return emulator().expect("the emulator opens").into_iter().collect();
    }
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
    match emulator() {
        Ok(Some(device)) => devices.push(device),
        Ok(None) => eprintln!("skipped: emulator: ANYMLX_EMULATOR=off"),
        Err(error) => eprintln!("skipped: emulator: {error}"),
    }
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

/// Devices that take texts in Metal's own language: the emulator, the Metal backend over a recorder that has the
/// emulator run what it is told to, and a GPU of Apple's where there is one.
pub(crate) fn metal_devices() -> Vec<MlxDevice> {
    let mut devices = Vec::new();
    match emulator_options() {
        Ok(Some(options)) => {
            let options = EmulatorOptions { metal: true, ..options };
            let recorder = RecorderOptions { run: Run::Emulator(options.clone()), ..RecorderOptions::default() };
            let opened = MlxDevice::emulator(&options)
                .and_then(|emulator| Ok([emulator, MlxDevice::metal_recorder(&recorder, &MetalOptions::default())?]));
            match opened {
                Ok(opened) => devices.extend(opened),
                Err(error) => eprintln!("skipped: emulator: {error}"),
            }
        }
        Ok(None) => eprintln!("skipped: emulator: ANYMLX_EMULATOR=off"),
        Err(error) => eprintln!("skipped: emulator: {error}"),
    }
    match MlxDevice::metal() {
        Ok(device) => devices.push(device),
        Err(error) => eprintln!("skipped: metal: {error}"),
    }
    devices
}

/// The emulator as the environment asks for it.
fn emulator() -> Result<Option<MlxDevice>> {
    emulator_options()?.map(|options| MlxDevice::emulator(&options)).transpose()
}

fn emulator_options() -> Result<Option<EmulatorOptions>> {
    let Some(mode) = env::emulator().expect("ANYMLX_EMULATOR") else { return Ok(None) };
    let cache = env::cache_dir()?.join("emulator");
    let schedule = env::emulator_schedule().expect("ANYMLX_EMULATOR_SCHEDULE");
    let options = EmulatorOptions { schedule, watch_log: env::emulator_log(), ..EmulatorOptions::new(cache) };
    Ok(Some(match mode {
        EmulatorMode::Every(sanitizer) => EmulatorOptions { sanitizer, ..options },
        EmulatorMode::Watched => EmulatorOptions { watchers: watchers(&options), ..options },
    }))
}

/// The sanitizers for which there is a compiler, each with an order of threads unlike the usual one.
fn watchers(options: &EmulatorOptions) -> Vec<Watcher> {
    static WATCHERS: OnceLock<Vec<Watcher>> = OnceLock::new();
    let all = [(Sanitizer::Address, Schedule::Reverse), (Sanitizer::Thread, Schedule::Shuffled(20_240_229))];
    let usable = |(sanitizer, schedule)| match MlxDevice::emulator(&EmulatorOptions { sanitizer, ..options.clone() }) {
        Ok(_) => Some(Watcher { sanitizer, schedule }),
        Err(error) => {
            eprintln!("skipped: emulator {}: {error}", Sanitizer::name(sanitizer));
            None
        }
    };
    WATCHERS.get_or_init(|| all.into_iter().filter_map(usable).collect()).clone()
}

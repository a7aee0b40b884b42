//! `anymlx devices`.

use std::io::Write;

use anymlx::{BackendKind, CpuLevel, MlxDevice};

use crate::failure::{Failure, Outcome};

pub fn run() -> Outcome {
    let mut output = std::io::stdout().lock();
    for device in MlxDevice::available() {
        let name = match device.backend {
            BackendKind::Cuda => format!("cuda:{}", device.index),
            other => other.name().to_owned(),
        };
        let gib = |bytes: u64| bytes as f64 / f64::from(1_u32 << 30);
        writeln!(
            output,
            "{name}: {}, {} {}, {:.1} GiB memory ({:.1} free), {}",
            device.name,
            device.compute_units,
            if device.backend == BackendKind::Cpu { "threads" } else { "multiprocessors" },
            gib(device.memory_total),
            gib(device.memory_free),
            device.features.join(" "),
        )
        .map_err(Failure::output)?;
        if device.backend == BackendKind::Cpu {
            writeln!(output, "     kernels use {}", CpuLevel::best()).map_err(Failure::output)?;
        }
    }
    for (name, error) in [("cuda:0", MlxDevice::cuda(0).err()), ("metal", MlxDevice::metal().err())] {
        if let Some(error) = error {
            eprintln!("{name}: absent: {error}");
        }
    }
    Ok(())
}

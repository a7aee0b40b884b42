//! How fast a device reads its memory: the limit of everything that reads each byte once.

use std::time::Duration;

use crate::{
    CpuKernel, DType, Invocation, KernelKey, KernelResult, Launch, MlxDevice, Result, TensorType, read,
    registry::BuiltIn, write,
};

pub(crate) const GPU: &str = concat!("#line 1 \"bandwidth.gpu.cpp\"\n", include_str!("bandwidth.gpu.cpp"), "\n");

/// A measured bandwidth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// Bytes read per second: the median of several passes.
    pub bytes_per_second: f64,
}

/// Bytes of the buffer that is read: far more than any cache.
const BYTES: usize = 256 << 20;
/// Bytes that one work item reads.
const ITEM: usize = 256 << 10;
const PASSES: usize = 7;

// SAFETY: item `i` writes element `i` of binding 1.
const KERNEL: CpuKernel = unsafe { CpuKernel::partitioned(sum_items) };

fn sum_items(invocation: &Invocation<'_>) -> KernelResult {
    let words = invocation.input::<u64>(0);
    for item in invocation.items() {
        let words = &words[item * (ITEM / 8)..(item + 1) * (ITEM / 8)];
        let mut sums = [0_u64; 32];
        for chunk in words.as_chunks::<32>().0 {
            for (sum, word) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_add(*word);
            }
        }
        // SAFETY: the element of this item.
        let total = unsafe { invocation.output::<u64>(1, item..item + 1) };
        total[0] = sums.iter().fold(0, |total, sum| total.wrapping_add(*sum));
    }
    Ok(())
}

/// Reads a buffer of 256 MiB on all of the device's threads, several times.
///
/// # Errors
/// `BufferAllocationError` when there is no room for it; what the device reports.
pub fn measure_read(device: &MlxDevice) -> Result<Bandwidth> {
    let items = BYTES / ITEM;
    let from = device.alloc_buffer(BYTES, DType::U8, vec![BYTES])?;
    let sums = device.alloc_buffer(items * 8, DType::I64, vec![items])?;
    let key = KernelKey { operation: "bandwidth", element: TensorType::Dense(DType::I64), variant: "read" };
    let kernel = device.kernels().built_in(&BuiltIn { key, gpu: GPU, cpu: KERNEL })?;
    let graph = device.record_labeled("bandwidth", |encoder| {
        // Untouched pages are all one page of zeros; the fill makes them real.
        let launch = Launch { groups: [items as u32, 1, 1], threads_per_group: 256, items, items_per_chunk: 1 };
        encoder.dispatch(&kernel, &[read(&from), write(&sums)], &((ITEM / 8) as u32), launch)
    })?;
    let mut encoder = device.command_encoder()?;
    encoder.fill_bytes(&from, 1)?;
    encoder.commit_and_wait()?;
    let mut times = Vec::with_capacity(PASSES);
    for _ in 0..PASSES {
        times.push(graph.replay()?.wait()?.execution);
    }
    times.sort();
    let median: Duration = times[PASSES / 2];
    Ok(Bandwidth { bytes_per_second: BYTES as f64 / median.as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_devices::devices;

    #[test]
    fn reads_every_byte() {
        assert!(measure_read(&MlxDevice::cpu().unwrap()).unwrap().bytes_per_second > 1e6);
        devices().iter().for_each(sums_are_whole);
    }

    fn sums_are_whole(device: &MlxDevice) {
        let from = device.buffer_from_slice(&vec![3_u8; 2 * ITEM], DType::U8, [2 * ITEM]).unwrap();
        let sums = device.zeros(DType::I64, [2]).unwrap();
        let key = KernelKey { operation: "bandwidth", element: TensorType::Dense(DType::I64), variant: "read" };
        let kernel = device.kernels().built_in(&BuiltIn { key, gpu: GPU, cpu: KERNEL }).unwrap();
        let mut encoder = device.command_encoder().unwrap();
        let launch = Launch { groups: [2, 1, 1], threads_per_group: 256, items: 2, items_per_chunk: 1 };
        encoder.dispatch(&kernel, &[read(&from), write(&sums)], &((ITEM / 8) as u32), launch).unwrap();
        encoder.commit_and_wait().unwrap();
        let expected = (ITEM as u64 / 8).wrapping_mul(0x0303_0303_0303_0303);
        assert_eq!(sums.to_vec::<u64>().unwrap(), [expected, expected]);
    }
}

//! How fast a device reads its memory: the limit of everything that reads each byte once.

use std::time::Duration;

use crate::{
    CommandGraph, DType, Invocation, KernelKey, KernelResult, Launch, MlxDevice, Result, TensorType,
    ops::lanes::{self, LaneKernel, Lanes},
    read,
    registry::BuiltIn,
    write,
};

pub(crate) const GPU: &str = concat!("#line 1 \"bandwidth.gpu.cpp\"\n", include_str!("bandwidth.gpu.cpp"), "\n");

/// A measured bandwidth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// Bytes read per second: the median of several passes.
    pub bytes_per_second: f64,
}

/// Bytes of the buffer that is read: far more than any cache.
pub const BYTES: usize = 256 << 20;
/// Bytes that one work item reads.
const ITEM: usize = 256 << 10;
const PASSES: usize = 7;

struct SumItems;

// SAFETY: item `i` writes element `i` of binding 1.
unsafe impl LaneKernel for SumItems {
    #[inline(always)]
    fn run<L: Lanes>(invocation: &Invocation<'_>) -> KernelResult {
        sum_items(invocation)
    }
}

/// Vectorises by itself, with the level's instructions.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn sum_items(invocation: &Invocation<'_>) -> KernelResult {
    let words = invocation.input::<u64>(0);
    for item in invocation.items() {
        let words = &words[item * (ITEM / 8)..(item + 1) * (ITEM / 8)];
        let mut sums = [0_u64; 32];
        for chunk in words.as_chunks::<32>().0 {
            for index in 0..32 {
                sums[index] = sums[index].wrapping_add(chunk[index]);
            }
        }
        // SAFETY: the element of this item.
        let total = unsafe { invocation.output::<u64>(1, item..item + 1) };
        total[0] = sums.iter().fold(0, |total, sum| total.wrapping_add(*sum));
    }
    Ok(())
}

/// A buffer to be read again and again.
#[derive(Debug)]
pub struct Reader {
    graph: CommandGraph,
}

impl Reader {
    /// Fills a buffer of [`BYTES`] bytes.
    ///
    /// # Errors
    /// `BufferAllocationError` when there is no room for it; what the device reports.
    pub fn new(device: &MlxDevice) -> Result<Self> {
        let items = BYTES / ITEM;
        let from = device.alloc_buffer(BYTES, DType::U8, vec![BYTES])?;
        let sums = device.alloc_buffer(items * 8, DType::I64, vec![items])?;
        let key = KernelKey { operation: "bandwidth", element: TensorType::Dense(DType::I64), variant: "read" };
        let kernel = device.kernels().built_in(&BuiltIn {
            key,
            gpu: GPU,
            cpu: lanes::kernel::<SumItems>(device.cpu_level()),
        })?;
        let graph = device.record_labeled("bandwidth", |encoder| {
            let launch = Launch { groups: [items as u32, 1, 1], threads_per_group: 256, items, items_per_chunk: 1 };
            encoder.dispatch(&kernel, &[read(&from), write(&sums)], &((ITEM / 8) as u32), launch)
        })?;
        // Untouched pages are all one page of zeros; the fill makes them real.
        let mut encoder = device.command_encoder()?;
        encoder.fill_bytes(&from, 1)?;
        encoder.commit_and_wait()?;
        Ok(Self { graph })
    }

    /// Reads all bytes once, on all of the device's threads.
    ///
    /// # Errors
    /// What the device reports.
    pub fn pass(&self) -> Result<Duration> {
        Ok(self.graph.replay()?.wait()?.execution)
    }
}

/// Reads a buffer of 256 MiB on all of the device's threads, several times.
///
/// # Errors
/// As [`Reader::new`].
pub fn measure_read(device: &MlxDevice) -> Result<Bandwidth> {
    let reader = Reader::new(device)?;
    let mut times = (0..PASSES).map(|_| reader.pass()).collect::<Result<Vec<_>>>()?;
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
        let kernel = device
            .kernels()
            .built_in(&BuiltIn { key, gpu: GPU, cpu: lanes::kernel::<SumItems>(device.cpu_level()) })
            .unwrap();
        let mut encoder = device.command_encoder().unwrap();
        let launch = Launch { groups: [2, 1, 1], threads_per_group: 256, items: 2, items_per_chunk: 1 };
        encoder.dispatch(&kernel, &[read(&from), write(&sums)], &((ITEM / 8) as u32), launch).unwrap();
        encoder.commit_and_wait().unwrap();
        let expected = (ITEM as u64 / 8).wrapping_mul(0x0303_0303_0303_0303);
        assert_eq!(sums.to_vec::<u64>().unwrap(), [expected, expected]);
    }
}

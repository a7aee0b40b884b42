//! One device, many threads.

use std::sync::{
    Barrier,
    atomic::{AtomicUsize, Ordering},
};

use anymlx::{CpuKernel, KernelSource, MlxBufferPool, MlxError, read, write};

use crate::{
    gpu,
    subject::Subject,
    support::{add_one, dispatch, submit_add_one, u32s, values},
};

const THREADS: u32 = 64;

pub fn many_threads_share_a_device(subject: &Subject) {
    let device = &subject.device;
    add_one(device);
    let shared = u32s(device, &(0..231).collect::<Vec<_>>());
    let results = u32s(device, &[0; THREADS as usize * 7]);
    let start = Barrier::new(THREADS as usize);
    let names: Vec<_> = (0..THREADS).map(|thread| format!("thread_{thread}")).collect();
    let text = gpu::idle(names.iter().map(String::as_str));
    let (shared, results, start, text) = (&shared, &results, &start, &text);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let name = format!("thread_{thread}");
                let cpu = Some(CpuKernel::whole(|_| Ok(())));
                device.kernels().register(KernelSource { name: &name, gpu: text, cpu }).unwrap();
                let mut pool = MlxBufferPool::new();
                let own = results.slice_view(u64::from(thread) * 28, 7);
                start.wait();
                for round in 0..20_u64 {
                    let from = shared.slice_view(4 * (round + u64::from(thread)), 7);
                    let mut encoder = device.command_encoder_labeled(&name).unwrap();
                    let scratch = encoder.scratch(&mut pool, shared.dtype(), &[7]).unwrap();
                    dispatch(&mut encoder, &add_one(device), &[read(&from), write(&scratch)], 7);
                    dispatch(&mut encoder, &device.kernels().get(&name).unwrap(), &[read(&scratch)], 1);
                    dispatch(&mut encoder, &add_one(device), &[read(&scratch), write(&own)], 7);
                    let submission = encoder.commit().unwrap();
                    if round % 3 == 0 {
                        submission.wait().unwrap();
                    }
                    assert_eq!(shared.read::<u32>().unwrap()[230], 230);
                }
                assert!(pool.stats().misses <= 20);
            });
        }
    });
    device.synchronize();
    let expected: Vec<u32> = (0..THREADS).flat_map(|thread| (0..7).map(move |at| 19 + thread + at + 2)).collect();
    assert_eq!(values(results), expected);
    assert_eq!(device.kernels().names().len(), THREADS as usize + 1);
    let last = device.command_encoder().unwrap().commit().unwrap();
    assert_eq!(last.id(), u64::from(THREADS) * 20 + 1, "every submission has its own number");
    let stats = device.residency_stats();
    assert_eq!((stats.adds, stats.removes), (2, 0));
    last.wait().unwrap();
    assert_eq!(device.info().memory_in_use, (231 + u64::from(THREADS) * 7) * 4, "all scratch is freed");
}

/// Every thread adds 1 to a counter in one buffer, on the host under a guard or on the device;
/// whoever is refused tries again. No addition may be lost.
pub fn guards_and_submissions_of_many_threads_exclude_each_other(subject: &Subject) {
    const ROUNDS: u32 = 10;
    let device = &subject.device;
    let (counter, spare) = (u32s(device, &[0]), u32s(device, &[0]));
    let add_one = add_one(device);
    let refusals = AtomicUsize::new(0);
    let (counter, spare, refusals, add_one) = (&counter, &spare, &refusals, &add_one);
    let retry = |step: &dyn Fn() -> anymlx::Result<()>| loop {
        match step() {
            Ok(()) => return,
            Err(MlxError::InFlight(_) | MlxError::Locked(_)) => {
                refusals.fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    };
    let on_host = || counter.write::<u32>().map(|mut guard| guard[0] += 1);
    let on_device = || {
        let mut encoder = device.command_encoder()?;
        dispatch(&mut encoder, add_one, &[read(counter), write(spare)], 1);
        encoder.copy_bytes(spare, counter)?;
        encoder.commit().map(|_| ())
    };
    std::thread::scope(|scope| {
        for thread in 0..16 {
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    if thread % 2 == 0 { retry(&on_host) } else { retry(&on_device) }
                }
            });
        }
    });
    device.synchronize();
    assert_eq!(values(counter), [16 * ROUNDS]);
    submit_add_one(device, counter, spare).unwrap().wait().unwrap();
    assert_eq!(values(spare), [16 * ROUNDS + 1]);
}

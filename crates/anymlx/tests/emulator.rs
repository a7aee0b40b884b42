//! What the emulator finds: kernels of our own, each with one thing wrong, and the same without it.

use std::time::Duration;

use anymlx::{
    CommandEncoder, DType, EmulatorOptions, KernelSource, Launch, MlxBuffer, MlxDevice, Result, Sanitizer, Schedule,
    Watcher, env, read, write,
};

/// The emulator; `None` with a printed reason where it cannot run.
fn emulator(sanitizer: Sanitizer, change: impl FnOnce(&mut EmulatorOptions)) -> Option<MlxDevice> {
    let mut options = EmulatorOptions::new(env::cache_dir().unwrap().join("emulator"));
    options.sanitizer = sanitizer;
    change(&mut options);
    match MlxDevice::emulator(&options) {
        Ok(device) => Some(device),
        Err(error) => {
            eprintln!("skipped: emulator {}: {error}", sanitizer.name());
            None
        }
    }
}

/// `y[i] = function of x` over one group of 64 threads, with `body` in place of the function.
fn text(body: &str) -> String {
    format!(
        "struct Block {{ uint count; }};\n\
         KERNEL(probe, IN(float, x), OUT(float, y), PARAMS(Block, p)) {{\n\
           SHARED(float, kept, 64);\n\
           kept[tid] = x[tid];\n\
           {body}\n\
         }}\n"
    )
}

const THREADS: usize = 64;

fn record(
    encoder: &mut CommandEncoder,
    kernel: &anymlx::Kernel,
    x: &MlxBuffer,
    y: &MlxBuffer,
    threads: u32,
) -> Result<()> {
    let launch = Launch { groups: [1; 3], threads_per_group: threads, items: 1, items_per_chunk: 1 };
    encoder.dispatch(kernel, &[read(x), write(y)], &(THREADS as u32), launch)
}

/// What the kernel makes of `0, 1, 2, ..`, or why it failed.
fn run(device: &MlxDevice, text: &str) -> Result<Vec<f32>, String> {
    run_with(device, text, THREADS as u32)
}

fn run_with(device: &MlxDevice, text: &str, threads: u32) -> Result<Vec<f32>, String> {
    let values: Vec<f32> = (0..THREADS).map(|index| index as f32).collect();
    let x = device.buffer_from_slice(&values, DType::F32, [THREADS]).unwrap();
    let y = device.zeros(DType::F32, [THREADS]).unwrap();
    let run = || {
        device.kernels().register(KernelSource { name: "probe", gpu: text, cpu: None })?;
        let kernel = device.kernels().get("probe")?;
        let mut encoder = device.command_encoder()?;
        record(&mut encoder, &kernel, &x, &y, threads)?;
        encoder.commit_and_wait()
    };
    match run() {
        Ok(()) => Ok(y.to_vec().unwrap()),
        Err(error) => {
            assert!(y.to_vec::<f32>().is_err() || !error.to_string().contains("submission"), "the output is poisoned");
            Err(error.to_string())
        }
    }
}

/// A reversal through threadgroup memory: right with the barrier.
const REVERSE: &str = "BARRIER();\n  y[tid] = kept[63 - tid];";

fn reversed() -> Vec<f32> {
    (0..THREADS).rev().map(|index| index as f32).collect()
}

#[test]
fn a_right_kernel_passes_everywhere() {
    for sanitizer in [Sanitizer::None, Sanitizer::Address, Sanitizer::Thread] {
        for schedule in [Schedule::Forward, Schedule::Reverse, Schedule::Shuffled(3)] {
            let Some(device) = emulator(sanitizer, |options| options.schedule = schedule) else { continue };
            assert_eq!(run(&device, &text(REVERSE)), Ok(reversed()), "{sanitizer:?} {schedule:?}");
        }
    }
}

#[test]
fn accesses_outside_a_binding_are_found() {
    let Some(device) = emulator(Sanitizer::Address, |_| {}) else { return };
    let error = run(&device, &text("y[tid + 1] = kept[tid];")).unwrap_err();
    assert!(error.contains("heap-buffer-overflow") && error.contains("WRITE of size 4"), "{error}");
    let Some(device) = emulator(Sanitizer::Address, |_| {}) else { return };
    let error = run(&device, &text("y[tid] = x[tid + p.count];")).unwrap_err();
    assert!(error.contains("heap-buffer-overflow") && error.contains("READ of size 4"), "{error}");
    let Some(device) = emulator(Sanitizer::Address, |_| {}) else { return };
    let error = run(&device, &text("kept[tid + 1] = 0.0f; y[tid] = 0.0f;")).unwrap_err();
    // Which of the two checks speaks first depends on the compiler.
    assert!(error.contains("use-after-poison") || error.contains("out of bounds"), "{error}");
}

#[test]
fn a_missing_barrier_is_found_in_any_order() {
    for schedule in [Schedule::Forward, Schedule::Reverse, Schedule::Shuffled(5)] {
        let Some(device) = emulator(Sanitizer::Thread, |options| options.schedule = schedule) else { return };
        let error = run(&device, &text("y[tid] = kept[63 - tid];")).unwrap_err();
        assert!(error.contains("data race"), "{error}");
    }
    // A simdgroup operation orders nothing.
    let Some(device) = emulator(Sanitizer::Thread, |_| {}) else { return };
    let error = run(&device, &text("const float s = simd_sum(0.0f); y[tid] = s + kept[tid ^ 1];")).unwrap_err();
    assert!(error.contains("data race"), "{error}");
}

/// A transposition by Metal's matrices of a simdgroup: right with the barrier, and inside the bindings.
#[test]
fn mistakes_with_matrices_are_found() {
    let transposed = |from: &str| {
        text(&format!(
            "const ulong2 origin = {{0, 0}}; simdgroup_float8x8 m;\n\
             {from}\n\
             if (simd_id == 0) simdgroup_store(m, y);"
        ))
    };
    let expected: Vec<f32> = (0..THREADS).map(|index| (index % 8 * 8 + index / 8) as f32).collect();
    for sanitizer in [Sanitizer::None, Sanitizer::Address, Sanitizer::Thread] {
        let Some(device) = emulator(sanitizer, |_| {}) else { continue };
        let right = transposed("BARRIER(); simdgroup_load(m, kept, 8, origin, true);");
        assert_eq!(run(&device, &right), Ok(expected.clone()), "{sanitizer:?}");
    }
    for (sanitizer, from, found) in [
        (Sanitizer::Thread, "simdgroup_load(m, kept, 8, origin, true);", "data race"),
        (Sanitizer::Address, "simdgroup_load(m, x + 8, 8, origin, true);", "heap-buffer-overflow"),
        (
            Sanitizer::None,
            "BARRIER(); if (lane < 16) simdgroup_load(m, kept, 8, origin, true);",
            "these threads can never meet",
        ),
    ] {
        let Some(device) = emulator(sanitizer, |_| {}) else { continue };
        let error = run(&device, &transposed(from)).unwrap_err();
        assert!(error.contains(found), "{from}: {error}");
    }
}

/// First launches under both sanitizers in other orders: mistakes are found, results compared, passes noted.
#[test]
fn watchers_see_the_first_launches() {
    let folder = std::env::temp_dir().join(format!("anymlx-watch-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let log = folder.join("log");
    let watched = |sanitizer| {
        emulator(Sanitizer::None, |options| {
            options.watchers = vec![Watcher { sanitizer, schedule: Schedule::Reverse }];
            options.watch_log = Some(log.clone());
        })
    };
    for (sanitizer, body, found) in [
        (Sanitizer::Address, "y[tid + 1] = kept[tid]; // watched", "heap-buffer-overflow"),
        (Sanitizer::Thread, "y[tid] = kept[63 - tid]; // watched", "data race"),
        (Sanitizer::None, "y[tid] = kept[63 - tid]; // compared", "writes other bytes to binding 1"),
    ] {
        let Some(device) = watched(sanitizer) else { continue };
        let error = run(&device, &text(body)).unwrap_err();
        assert!(error.contains(found), "{sanitizer:?}: {error}");
        assert!(!log.exists(), "what failed is not noted");
    }
    let right = text("BARRIER(); y[tid] = kept[63 - tid]; // watched");
    for sanitizer in [Sanitizer::Address, Sanitizer::Thread] {
        let Some(device) = watched(sanitizer) else { continue };
        assert_eq!(run(&device, &right), Ok(reversed()), "{sanitizer:?}");
        assert!(std::fs::read_to_string(&log).unwrap().starts_with("probe\n"));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_order_of_threads_can_be_changed() {
    let racy = text("y[tid] = tid == 63 ? 0.0f : kept[tid + 1];");
    let of = |schedule| run(&emulator(Sanitizer::None, |options| options.schedule = schedule)?, &racy).ok();
    let (forward, reverse) = (of(Schedule::Forward), of(Schedule::Reverse));
    if let (Some(forward), Some(reverse)) = (forward, reverse) {
        // Forwards a thread runs before its neighbour has stored, and finds the NaN that memory starts with.
        assert!(forward[0].is_nan());
        assert_eq!(reverse[0], 1.0);
    }
}

#[test]
fn what_cannot_run_on_a_gpu_is_refused() {
    for (body, expected) in [
        ("if (tid < 32) { BARRIER(); } y[tid] = 0.0f;", "these threads can never meet"),
        ("if (lane < 16) { kept[0] = simd_sum(1.0f); } y[tid] = 0.0f;", "these threads can never meet"),
        ("store4(y + 1, load4(x + 1));", "misaligned"),
        ("FAULT(FAULT_ROW, 3, 9, 8); y[tid] = 0.0f;", "ids[3] is 9, the table has 8 rows"),
        ("*(float*)(x + tid) = 1.0f; y[tid] = 0.0f;", "the kernel wrote binding 0, which is declared as read"),
        ("y[tid] = 1 / 0.0", "compile kernel `probe`"),
    ] {
        let Some(device) = emulator(Sanitizer::None, |_| {}) else { return };
        let error = run(&device, &text(body)).unwrap_err();
        assert!(error.contains(expected), "{body}: {error}");
    }
    let Some(device) = emulator(Sanitizer::None, |_| {}) else { return };
    let error = run_with(&device, &text(REVERSE), 48).unwrap_err();
    assert!(error.contains("48 threads, needed a multiple of 32"), "{error}");
    let Some(device) = emulator(Sanitizer::None, |_| {}) else { return };
    let error = run(&device, "KERNEL(other, IN(float, x), OUT(float, y)) { y[tid] = x[tid]; }").unwrap_err();
    assert!(error.contains("the text has no kernel `probe`"), "{error}");
    let Some(device) = emulator(Sanitizer::None, |_| {}) else { return };
    let error = run(&device, "KERNEL(probe, OUT(float, x), OUT(float, y)) { y[tid] = x[tid]; }").unwrap_err();
    assert!(error.contains("needed") || error.contains("parameters"), "{error}");
    let Some(device) = emulator(Sanitizer::None, |_| {}) else { return };
    assert!(run(&device, "").unwrap_err().contains("no text for GPUs"));
}

/// A large array of so many bytes beside `kept`, of which the threads use the end.
fn large(bytes: usize, last: usize) -> String {
    let body = format!(
        "LARGE_SHARED(large, {bytes});\n\
         store_u32(large + {last} - 4 * tid, tid);\n\
         BARRIER();\n\
         y[tid] = float(load_u32(large + {last} - 4 * (63 - tid)));"
    );
    format!("LARGE_SHARED_SIZE(probe, {bytes})\n{}", text(&body))
}

#[test]
fn large_arrays_have_the_memory_of_a_gpu_and_an_end() {
    const BYTES: usize = 99 * 1024 - 64 * 4;
    for sanitizer in [Sanitizer::None, Sanitizer::Address, Sanitizer::Thread] {
        let Some(device) = emulator(sanitizer, |_| {}) else { continue };
        assert_eq!(run(&device, &large(BYTES, BYTES - 4)), Ok(reversed()), "{sanitizer:?}");
    }
    let Some(device) = emulator(Sanitizer::None, |_| {}) else { return };
    let error = run(&device, &large(BYTES + 4, BYTES)).unwrap_err();
    assert!(error.contains("more than 101376 bytes of threadgroup memory"), "{error}");
    let Some(device) = emulator(Sanitizer::None, |_| {}) else { return };
    let error = run(&device, &large(BYTES, BYTES - 4).replace(&format!("probe, {BYTES}"), "probe, 256")).unwrap_err();
    assert!(error.contains("LARGE_SHARED_SIZE does not say what LARGE_SHARED does"), "{error}");
    let Some(device) = emulator(Sanitizer::None, |_| {}) else { return };
    let error = run(&device, &text("SHARED(float, more, 8192); more[tid] = 0.0f; y[tid] = more[tid];")).unwrap_err();
    assert!(error.contains("more than 32768 bytes of threadgroup memory"), "{error}");
    let Some(device) = emulator(Sanitizer::Address, |_| {}) else { return };
    let error = run(&device, &large(BYTES, BYTES)).unwrap_err();
    assert!(error.contains("heap-buffer-overflow") && error.contains("WRITE of size 4"), "{error}");
    let racy = large(BYTES, BYTES - 4).replace("BARRIER();", "");
    let Some(device) = emulator(Sanitizer::Thread, |_| {}) else { return };
    let error = run(&device, &racy).unwrap_err();
    assert!(error.contains("data race"), "{error}");
}

#[test]
fn compile_errors_name_the_line_of_the_text() {
    let Some(device) = emulator(Sanitizer::None, |_| {}) else { return };
    let error = run(&device, &text("undeclared = 1;")).unwrap_err();
    assert!(error.contains("kernel:5:") && error.contains("undeclared"), "{error}");
}

#[test]
fn an_endless_kernel_ends() {
    let Some(device) = emulator(Sanitizer::None, |options| options.time_limit = Duration::from_secs(1)) else { return };
    let error = run(&device, &text("while (p.count > 0) kept[tid] += 1.0f; y[tid] = kept[tid];")).unwrap_err();
    assert!(error.contains("SIGALRM"), "{error}");
}

#[test]
fn the_device_works_on_after_a_failure() {
    let Some(device) = emulator(Sanitizer::Address, |_| {}) else { return };
    let body = "y[x[tid] == 63.0f ? p.count : tid] = 1.0f;";
    device.kernels().register(KernelSource { name: "probe", gpu: &text(body), cpu: None }).unwrap();
    let kernel = device.kernels().get("probe").unwrap();
    let y = device.zeros(DType::F32, [THREADS]).unwrap();
    let run = |last: f32| {
        let mut values = vec![0.0_f32; THREADS];
        values[THREADS - 1] = last;
        let x = device.buffer_from_slice(&values, DType::F32, [THREADS]).unwrap();
        let mut encoder = device.command_encoder().unwrap();
        record(&mut encoder, &kernel, &x, &y, THREADS as u32).unwrap();
        encoder.commit_and_wait()
    };
    assert!(run(63.0).is_err());
    run(0.0).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [1.0; THREADS]);
}

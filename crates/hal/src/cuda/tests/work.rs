//! Kernels, submissions, graphs.

use std::{fs, sync::Arc, time::Instant};

use super::{Args, bound, device, floats, kernel, launch, open, read, record};
use crate::{
    Access, HalError,
    backend::{Bound, Buffer as _, Device as _, Encoder as _, KernelSource, Pending as _, StorageMode},
    cuda::{CudaOptions, GraphEdges},
};

fn compile_error(text: &str, name: &str) -> Option<String> {
    let device = device()?;
    let error = device.compile(&KernelSource { name, gpu: text, cpu: None }).expect_err("does not compile");
    let HalError::CompileFailed { name: given, log } = error else { panic!("{error}") };
    assert_eq!(given, name);
    Some(log)
}

#[test]
fn compile_failures_carry_log_and_line() {
    let Some(log) = compile_error("\n\nKERNEL(broken, OUT(float, x)) {\n  x[0] = nonsense;\n}\n", "broken") else {
        return;
    };
    assert!(log.contains("nonsense") && log.contains("(4)"), "{log}");
    let log = compile_error(super::TEXT, "absent").expect("a device");
    assert!(log.contains("entry"), "{log}");
    let log = compile_error("  \n", "empty").expect("a device");
    assert!(log.contains("no GPU text"), "{log}");
}

#[test]
fn launches_and_arguments_are_checked() {
    let Some(device) = device() else { return };
    let buffer = floats(&device, &[0.0; 64]);
    let args = Args { amount: 1.0, count: 64 };
    let bounded = kernel(&device, "bounded");
    let attempt = |groups: [u32; 3], threads: u32, bindings: usize, params: &[u8]| {
        let bindings = vec![bound(&buffer, Access::Write); bindings];
        let launch = crate::Launch { groups, threads_per_group: threads, ..launch(1, 32) };
        device.encoder().expect("encoder").dispatch(&bounded, &bindings, params, launch, "bounded")
    };
    let params = bytemuck::bytes_of(&args);
    attempt([1, 1, 1], 64, 1, params).expect("within the limits");
    for (groups, threads) in [([1, 1, 1], 0), ([1, 1, 1], 33), ([1, 1, 1], 96), ([0, 1, 1], 32), ([1, 70_000, 1], 32)] {
        let error = attempt(groups, threads, 1, params).expect_err("outside the limits");
        assert!(error.to_string().contains("bounded"), "{error}");
    }
    for (bindings, params) in [(0, params), (2, params), (1, &params[..4]), (1, &[])] {
        let Err(error) = attempt([1, 1, 1], 32, bindings, params) else {
            eprintln!("skipped: this driver does not tell the sizes of parameters");
            return;
        };
        assert!(error.to_string().contains("parameters"), "{error}");
    }
}

/// Reverses 20,000 numbers through threadgroup memory of 80,000 bytes.
const REVERSE: &str = r#"
DYNAMIC_SHARED(reverse, 80000)
KERNEL(reverse, INOUT(uint, x)) {
  extern __shared__ uint numbers[];
  for (uint i = tid; i < 20000; i += tg_size.x) numbers[i] = x[i];
  BARRIER();
  for (uint i = tid; i < 20000; i += tg_size.x) x[i] = numbers[19999 - i];
}
DYNAMIC_SHARED(greedy, 1u << 30)
KERNEL(greedy, INOUT(uint, x)) { x[tid] = 0; }
"#;

#[test]
fn texts_say_how_much_threadgroup_memory_a_kernel_has() {
    let Some(device) = device() else { return };
    assert!(matches!(device.info().native, crate::NativeTexts::Cuda(_)));
    let reverse = device.compile(&KernelSource { name: "reverse", gpu: REVERSE, cpu: None }).expect("compiles");
    let numbers: Vec<u32> = (0..20_000).collect();
    let buffer = device.allocate(80_000, StorageMode::Private).expect("allocates");
    device.upload(&buffer, 0, bytemuck::cast_slice(&numbers)).expect("uploads");
    let record = || {
        let mut encoder = device.encoder().expect("encoder");
        encoder
            .dispatch(&reverse, &[bound(&buffer, Access::ReadWrite)], &[], launch(1, 256), "reverse")
            .expect("records");
        encoder
    };
    device.submit(record(), "reverse").expect("submits").wait().expect("runs");
    assert!(read::<u32>(&device, &buffer).into_iter().eq((0..20_000).rev()));
    let graph = Arc::new(device.instantiate(record(), "reverse").expect("instantiates"));
    device.replay(&graph).expect("replays").wait().expect("runs");
    assert_eq!(read::<u32>(&device, &buffer), numbers);
    let error = device.compile(&KernelSource { name: "greedy", gpu: REVERSE, cpu: None }).expect_err("too much");
    assert!(error.to_string().contains("1073741824 bytes"), "{error}");
}

#[test]
fn kernels_run_in_the_order_of_submission() {
    let Some(device) = device() else { return };
    let (add, scaled) = (kernel(&device, "add_amount"), kernel(&device, "scaled"));
    for count in [1, 33, 7 * 33 * 11] {
        let values: Vec<f32> = (0..count).map(|at| at as f32).collect();
        let (x, y) = (floats(&device, &values), floats(&device, &values));
        let mut encoder = device.encoder().expect("encoder");
        encoder.push_label("outer");
        record(&mut encoder, &add, &[&x], Args { amount: 2.0, count }).expect("records");
        encoder.barrier();
        record(&mut encoder, &scaled, &[&x, &y], Args { amount: 3.0, count }).expect("records");
        encoder.pop_label();
        let first = device.submit(encoder, "first").expect("submits");
        let mut encoder = device.encoder().expect("encoder");
        record(&mut encoder, &add, &[&y], Args { amount: -1.0, count }).expect("records");
        let second = device.submit(encoder, "second").expect("submits");
        second.wait().expect("runs");
        first.wait().expect("runs");
        let expected: Vec<f32> = values.iter().map(|value| (value + 2.0) * 3.0 - 1.0).collect();
        assert_eq!(read::<f32>(&device, &y), expected);
    }
}

fn part(buffer: &crate::cuda::Buffer, offset: u64, byte_len: u64, access: Access) -> Bound<'_, crate::cuda::Cuda> {
    Bound { buffer, offset, byte_len, access }
}

#[test]
fn copies_and_fills_run_with_kernels_submitted_and_replayed() {
    let Some(device) = device() else { return };
    let add = kernel(&device, "add_amount");
    let values: Vec<f32> = (0..1000).map(|at| at as f32).collect();
    for replayed in [false, true] {
        let (x, y) = (floats(&device, &values), floats(&device, &[9.0; 1001]));
        let mut encoder = device.encoder().expect("encoder");
        encoder.fill(part(&y, 4, 4000, Access::Write), 0x3f).expect("records");
        record(&mut encoder, &add, &[&x], Args { amount: 1.0, count: 1000 }).expect("records");
        encoder.barrier();
        encoder.copy(part(&x, 4, 400, Access::Read), part(&y, 804, 400, Access::Write)).expect("records");
        encoder.fill(part(&y, 2001, 3, Access::Write), 0).expect("records");
        encoder.barrier();
        encoder.barrier();
        record(&mut encoder, &add, &[&y], Args { amount: 1.0, count: 1001 }).expect("records");
        if replayed {
            let graph = Arc::new(device.instantiate(encoder, "graph").expect("instantiates"));
            device.replay(&graph).expect("replays").wait().expect("runs");
        } else {
            device.submit(encoder, "commands").expect("submits").wait().expect("runs");
        }
        let filled = f32::from_bits(0x3f3f_3f3f);
        let mut expected = vec![filled; 1001];
        expected[0] = 9.0;
        (0..100).for_each(|at| expected[201 + at] = (at + 1) as f32 + 1.0);
        expected[500] = f32::from_bits(0x0000_003f);
        expected.iter_mut().for_each(|value| *value += 1.0);
        assert_eq!(read::<f32>(&device, &y), expected, "replayed: {replayed}");
    }
}

#[test]
fn graphs_run_as_often_as_asked_and_keep_their_kernels() {
    graphs_run(GraphEdges::Chain);
    graphs_run(GraphEdges::Barriers);
}

fn graphs_run(graph_edges: GraphEdges) {
    let Some(device) = open(&CudaOptions { graph_edges, ..CudaOptions::default() }) else { return };
    let (x, y) = (floats(&device, &[0.0; 100]), floats(&device, &[0.0; 100]));
    let graph = {
        let (add, scaled) = (kernel(&device, "add_amount"), kernel(&device, "scaled"));
        let mut encoder = device.encoder().expect("encoder");
        for _ in 0..50 {
            record(&mut encoder, &add, &[&x], Args { amount: 1.0, count: 100 }).expect("records");
            record(&mut encoder, &add, &[&y], Args { amount: 3.0, count: 100 }).expect("records");
            encoder.barrier();
            record(&mut encoder, &add, &[&x], Args { amount: 1.0, count: 100 }).expect("records");
            encoder.barrier();
        }
        record(&mut encoder, &scaled, &[&x, &y], Args { amount: 2.0, count: 100 }).expect("records");
        Arc::new(device.instantiate(encoder, "graph").expect("instantiates"))
    };
    let pending: Vec<_> = (0..40).map(|_| device.replay(&graph).expect("replays")).collect();
    drop(graph);
    for pending in pending {
        pending.wait().expect("runs");
    }
    assert_eq!(read::<f32>(&device, &x), [4000.0; 100]);
    assert_eq!(read::<f32>(&device, &y), [8000.0; 100]);
    let empty = Arc::new(device.instantiate(device.encoder().expect("encoder"), "empty").expect("instantiates"));
    device.replay(&empty).expect("replays").wait().expect("runs");
}

/// Prints what a replay of a graph costs the host, for a chain and for pairs that may overlap.
#[test]
fn replays_are_cheap_for_the_host() {
    for (name, graph_edges) in [("chain", GraphEdges::Chain), ("pairs", GraphEdges::Barriers)] {
        let Some(device) = open(&CudaOptions { graph_edges, ..CudaOptions::default() }) else { return };
        let (add, x, y) = (kernel(&device, "add_amount"), floats(&device, &[0.0; 100]), floats(&device, &[0.0; 100]));
        let mut encoder = device.encoder().expect("encoder");
        for _ in 0..100 {
            record(&mut encoder, &add, &[&x], Args { amount: 1.0, count: 100 }).expect("records");
            record(&mut encoder, &add, &[&y], Args { amount: 1.0, count: 100 }).expect("records");
            encoder.barrier();
        }
        let graph = Arc::new(device.instantiate(encoder, name).expect("instantiates"));
        let mut host = std::time::Duration::ZERO;
        let mut execution = Vec::new();
        for _ in 0..200 {
            let started = Instant::now();
            let pending = device.replay(&graph).expect("replays");
            host += started.elapsed();
            execution.push(pending.wait().expect("runs").execution);
        }
        execution.sort();
        eprintln!("{name} of 200 kernels: host {:?} per replay, device {:?} (median)", host / 200, execution[100]);
        assert!(host / 200 < std::time::Duration::from_millis(1));
    }
}

#[test]
fn compiled_texts_are_shared_kept_on_disk_and_made_again() {
    let folder = std::env::temp_dir().join(format!("anymlx-kernels-{}", std::process::id()));
    let options = CudaOptions { cache_folder: Some(folder.clone()), ..CudaOptions::default() };
    let Some(first) = open(&options) else { return };
    let files =
        || -> Vec<_> { fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry").path()).collect() };
    let timed = |device: &crate::cuda::Device| {
        let started = Instant::now();
        kernel(device, "add_amount");
        started.elapsed()
    };
    let cold = timed(&first);
    let kept = kernel(&first, "scaled");
    assert_eq!(files().len(), 1, "one text, one file, however many entries");
    let warm = timed(&open(&options).expect("opens"));
    fs::write(&files()[0], b"broken").expect("written");
    let mended = timed(&open(&options).expect("opens"));
    assert!(fs::metadata(&files()[0]).expect("made again").len() > 100);
    eprintln!("cold {cold:?}, from disk {warm:?}, after damage {mended:?}");
    assert!(warm < cold);
    fs::remove_dir_all(&folder).expect("removed");
    drop(first);
    drop(kept);
}

#[test]
fn threads_share_a_device() {
    let Some(device) = device() else { return };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let device = &device;
            scope.spawn(move || {
                let add = kernel(device, "add_amount");
                let x = floats(device, &[thread as f32; 1000]);
                for _ in 0..50 {
                    let mut encoder = device.encoder().expect("encoder");
                    record(&mut encoder, &add, &[&x], Args { amount: 1.0, count: 1000 }).expect("records");
                    device.submit(encoder, "shared").expect("submits").wait().expect("runs");
                }
                assert_eq!(read::<f32>(device, &x), [thread as f32 + 50.0; 1000]);
                let y = device.allocate(x.byte_len(), StorageMode::Shared).expect("allocates");
                assert_eq!(read::<f32>(device, &y), [0.0; 1000]);
            });
        }
    });
}

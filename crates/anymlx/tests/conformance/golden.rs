//! The recorded calls, word for word: scheduling and lifetimes without any GPU.

use anymlx::{DType, MlxBuffer, MlxBufferPool, MlxDevice, TraceLog, TraceOptions, read, write};

use crate::support::{Gate, add_one, dispatch, u32s, values};

fn open(options: TraceOptions) -> (MlxDevice, TraceLog) {
    let device = MlxDevice::trace(&options).unwrap();
    let log = device.trace_log().unwrap().clone();
    add_one(&device);
    log.take();
    (device, log)
}

fn unified() -> (MlxDevice, TraceLog) {
    open(TraceOptions::default())
}

#[track_caller]
fn assert_log(log: &TraceLog, expected: &str) {
    let lines: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let taken = log.take();
    assert!(taken == lines, "recorded:\n{}\nexpected:\n{}", taken.join("\n"), lines.join("\n"));
}

#[test]
fn two_operations_in_a_chain() {
    let (device, log) = unified();
    let (a, b, c) = (u32s(&device, &[1; 4]), u32s(&device, &[0; 4]), u32s(&device, &[0; 4]));
    let mut encoder = device.command_encoder_labeled("chain").unwrap();
    dispatch(&mut encoder, &add_one(&device), &[read(&a), write(&b)], 4);
    dispatch(&mut encoder, &add_one(&device), &[read(&b), write(&c)], 4);
    encoder.commit_and_wait().unwrap();
    drop((a, b, c));
    device.command_encoder().unwrap().commit_and_wait().unwrap();
    assert_log(
        &log,
        r#"
        alloc b1 16 shared
        resident+ b1
        alloc b2 16 shared
        resident+ b2
        alloc b3 16 shared
        resident+ b3
        encode
        dispatch add_one b1[0..16] b2[0..16] items=4 grid=4x1x1x32
        barrier
        dispatch add_one b2[0..16] b3[0..16] items=4 grid=4x1x1x32
        resident commit
        submit "chain"
        wait "chain"
        resident- b1
        free b1
        resident- b2
        free b2
        resident- b3
        free b3
        encode
        resident commit
        submit "commands"
        wait "commands"
        "#,
    );
}

#[test]
fn disjoint_slices_need_no_barrier() {
    let (device, log) = unified();
    let buffer = u32s(&device, &[1; 16]);
    let [a, b, c, d] = [0, 16, 32, 48].map(|at| buffer.slice_view(at, 4));
    log.take();
    let mut encoder = device.command_encoder_labeled("slices").unwrap();
    dispatch(&mut encoder, &add_one(&device), &[read(&a), write(&b)], 4);
    dispatch(&mut encoder, &add_one(&device), &[read(&a), write(&c)], 4);
    encoder.fill_bytes(&d, 1).unwrap();
    encoder.commit_and_wait().unwrap();
    assert_log(
        &log,
        r#"
        encode
        dispatch add_one b1[0..16] b1[16..32] items=4 grid=4x1x1x32
        dispatch add_one b1[0..16] b1[32..48] items=4 grid=4x1x1x32
        fill b1[48..64] 1
        resident commit
        submit "slices"
        wait "slices"
        "#,
    );
    assert_eq!(values(&buffer), [[1; 4], [2; 4], [2; 4], [0x0101_0101; 4]].concat());
}

#[test]
fn every_hazard_gets_one_barrier() {
    let (device, log) = unified();
    let (a, b) = (u32s(&device, &[1; 8]), u32s(&device, &[0; 8]));
    log.take();
    let mut encoder = device.command_encoder().unwrap();
    encoder.push_label("read after write").unwrap();
    encoder.fill_bytes(&a, 1).unwrap();
    encoder.copy_bytes(&a.slice_view(28, 1), &b.slice_view(0, 1)).unwrap();
    encoder.pop_label().unwrap();
    encoder.push_label("write after read").unwrap();
    encoder.fill_bytes(&a.slice_view(28, 1), 2).unwrap();
    encoder.pop_label().unwrap();
    encoder.push_label("write after write").unwrap();
    encoder.fill_bytes(&a.slice_view(24, 2), 3).unwrap();
    encoder.pop_label().unwrap();
    encoder.push_label("forced").unwrap();
    encoder.barrier().unwrap();
    encoder.fill_bytes(&a, 4).unwrap();
    encoder.push_label("left open").unwrap();
    encoder.commit_and_wait().unwrap();
    assert_log(
        &log,
        r#"
        encode
        push "read after write"
        fill b1[0..32] 1
        barrier
        copy b1[28..32] b2[0..4]
        pop
        push "write after read"
        barrier
        fill b1[28..32] 2
        pop
        push "write after write"
        barrier
        fill b1[24..32] 3
        pop
        push "forced"
        barrier
        fill b1[0..32] 4
        push "left open"
        pop
        pop
        resident commit
        submit "commands"
        wait "commands"
        "#,
    );
}

#[test]
fn a_loop_over_a_pool_allocates_once() {
    let (device, log) = unified();
    let (input, output) = (u32s(&device, &[1; 33]), u32s(&device, &[0; 33]));
    let mut pool = MlxBufferPool::new();
    let mut step = || {
        let mut encoder = device.command_encoder_labeled("step").unwrap();
        let scratch = encoder.scratch(&mut pool, DType::U32, &[33]).unwrap();
        dispatch(&mut encoder, &add_one(&device), &[read(&input), write(&scratch)], 33);
        dispatch(&mut encoder, &add_one(&device), &[read(&scratch), write(&output)], 33);
        encoder.commit_and_wait().unwrap();
    };
    log.take();
    step();
    let commands = r#"
        dispatch add_one b1[0..132] b3[0..132] items=33 grid=33x1x1x32
        barrier
        dispatch add_one b3[0..132] b2[0..132] items=33 grid=33x1x1x32
    "#;
    // 132 bytes are of the class of 144, and scratch never joins the residency set.
    let handed_over = "submit \"step\"\nwait \"step\"\n";
    assert_log(&log, &format!("encode\nalloc b3 144 shared\n{commands}\nresident commit\n{handed_over}"));
    for _ in 0..3 {
        step();
        assert_log(&log, &format!("encode\n{commands}\n{handed_over}"));
    }
}

#[test]
fn a_buffer_dropped_in_flight_is_freed_after_the_work() {
    let (device, log) = unified();
    let gate = Gate::new(&device);
    let buffer = u32s(&device, &[1; 4]);
    let submission = gate.enter(&device, &[write(&buffer)]);
    log.take();
    drop(buffer);
    device.command_encoder().unwrap().commit().unwrap();
    assert_log(&log, "encode\nsubmit \"commands\"");
    gate.open();
    submission.wait().unwrap();
    device.synchronize();
    let taken: Vec<String> = log.take().into_iter().filter(|line| !line.starts_with("wait")).collect();
    assert_eq!(taken, ["resident- b1", "free b1"]);
    device.command_encoder().unwrap().commit().unwrap();
    assert_log(&log, "encode\nresident commit\nsubmit \"commands\"");
}

#[test]
fn a_dropped_encoder_submits_nothing() {
    let (device, log) = unified();
    let buffer = u32s(&device, &[1; 4]);
    let mut encoder = device.command_encoder().unwrap();
    encoder.fill_bytes(&buffer, 1).unwrap();
    log.take();
    drop(encoder);
    assert_log(&log, "");
}

#[test]
fn a_graph_is_prepared_once_and_replayed() {
    let (device, log) = unified();
    let (a, b) = (u32s(&device, &[1; 4]), u32s(&device, &[0; 4]));
    log.take();
    let graph = device.record_labeled("decode", |encoder| encoder.copy_bytes(&a, &b)).unwrap();
    assert_log(&log, "encode\ncopy b1[0..16] b2[0..16]\ngraph g1 \"decode\"");
    graph.replay().unwrap().wait().unwrap();
    graph.replay().unwrap().wait().unwrap();
    assert_log(&log, "resident commit\nreplay g1\nwait \"decode\"\nreplay g1\nwait \"decode\"");
}

#[test]
fn closing_a_device_removes_everything() {
    let (device, log) = unified();
    let (a, b) = (u32s(&device, &[1; 4]), u32s(&device, &[1; 4]));
    device.command_encoder().unwrap().commit_and_wait().unwrap();
    log.take();
    drop(device);
    drop(a);
    assert_log(&log, "resident- b1\nfree b1");
    drop(b);
    assert_log(&log, "resident- b2\nfree b2\nresident commit");
}

#[test]
fn bytes_move_only_when_one_side_is_newer() {
    let (device, log) = open(TraceOptions { unified: false, ..TraceOptions::default() });
    let mut buffer: MlxBuffer = u32s(&device, &[1; 8]);
    let target = device.zeros(DType::U32, [8]).unwrap();
    assert_log(&log, "alloc b1 32 shared\nresident+ b1\nalloc b2 32 shared\nresident+ b2");
    let submit = || {
        let mut encoder = device.command_encoder().unwrap();
        encoder.copy_bytes(&buffer.slice_view(0, 4), &target.slice_view(16, 4)).unwrap();
        encoder.commit_and_wait().unwrap();
    };
    let copy = "encode\ncopy b1[0..16] b2[16..32]";
    submit();
    let done = "submit \"commands\"\nwait \"commands\"";
    assert_log(&log, &format!("{copy}\nresident commit\nupload b1[0..32]\n{done}"));
    submit();
    assert_log(&log, &format!("{copy}\n{done}"));
    assert_eq!(target.as_slice::<u32>().unwrap(), [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_log(&log, "download b2[16..32]");
    drop(target.read::<u32>().unwrap());
    drop(buffer.read::<u32>().unwrap());
    assert_log(&log, "");
    buffer.slice_view(8, 1).write::<u32>().unwrap()[0] = 2;
    submit();
    assert_log(&log, &format!("{copy}\nupload b1[8..12]\n{done}"));
    target.copy_from_slice(&[0_u32; 8]).unwrap();
    assert_log(&log, "");
    submit();
    assert_log(&log, &format!("{copy}\nupload b2[0..32]\n{done}"));
    drop(target.slice_view(16, 4).write::<u32>().unwrap());
    assert_log(&log, "download b2[16..32]");
    buffer.as_mut_slice::<u32>().unwrap()[7] = 9;
    drop(buffer);
    assert_log(&log, "resident- b1\nfree b1");
}

#[test]
fn bytes_under_a_write_guard_are_not_sent() {
    let (device, log) = open(TraceOptions { unified: false, ..TraceOptions::default() });
    let buffer = u32s(&device, &[1; 8]);
    let mut guard = buffer.slice_view(0, 4).write::<u32>().unwrap();
    log.take();
    let mut encoder = device.command_encoder().unwrap();
    encoder.fill_bytes(&buffer.slice_view(16, 2), 0).unwrap();
    encoder.commit_and_wait().unwrap();
    let handed_over = "submit \"commands\"\nwait \"commands\"";
    assert_log(&log, &format!("encode\nfill b1[16..24] 0\nresident commit\nupload b1[16..32]\n{handed_over}"));
    guard[3] = 2;
    drop(guard);
    let mut encoder = device.command_encoder().unwrap();
    encoder.copy_bytes(&buffer.slice_view(12, 1), &buffer.slice_view(16, 1)).unwrap();
    encoder.commit_and_wait().unwrap();
    assert_log(&log, &format!("encode\ncopy b1[12..16] b1[16..20]\nupload b1[0..16]\n{handed_over}"));
    assert_eq!(values(&buffer), [1, 1, 1, 2, 2, 0, 1, 1]);
}

#[test]
fn a_thousand_steps_leave_nothing_behind() {
    for unified in [true, false] {
        let (device, log) = open(TraceOptions { unified, ..TraceOptions::default() });
        let (input, output) = (u32s(&device, &[1; 33]), u32s(&device, &[0; 33]));
        let mut pool = MlxBufferPool::new();
        let graph = device.record(|encoder| encoder.copy_bytes(&output, &input)).unwrap();
        let step = |pool: &mut MlxBufferPool, number: usize| {
            let weights = u32s(&device, &[1; 33]);
            let mut encoder = device.command_encoder().unwrap();
            let scratch = encoder.scratch(pool, DType::U32, &[33]).unwrap();
            dispatch(&mut encoder, &add_one(&device), &[read(&input), write(&scratch)], 33);
            dispatch(&mut encoder, &add_one(&device), &[read(&weights), write(&output)], 33);
            let submission = encoder.commit().unwrap();
            graph.replay().unwrap();
            if number % 8 == 7 {
                submission.wait().unwrap();
                device.synchronize();
            }
        };
        // Allocations and frees so far, and the bytes that live.
        let mut balance = 2_i64;
        let mut live = |pool: &mut MlxBufferPool, steps: std::ops::Range<usize>| {
            steps.for_each(|number| step(pool, number));
            for line in log.take() {
                balance += i64::from(line.starts_with("alloc ")) - i64::from(line.starts_with("free "));
            }
            let stats = device.residency_stats();
            (balance, device.info().memory_in_use, stats.adds - stats.removes, pool.stats().in_use_blocks)
        };
        log.take();
        let early = live(&mut pool, 0..80);
        let late = live(&mut pool, 80..1000);
        // Scratch of steps that overlapped stays in the pool: at most one block for each of 8 steps.
        assert!(late.0 <= 2 + 8 && late.1 <= 8 * 144 + 2 * 132, "{late:?}");
        assert_eq!((late.2, late.3), (2, 0));
        assert!(late.0 - early.0 <= 8 && pool.stats().misses <= 8, "{early:?} {late:?} {:?}", pool.stats());
    }
}

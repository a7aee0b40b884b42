//! The calls that reach Metal, word for word: offsets, sizes, barriers, residency, submission, lifetimes. A line that begins with
//! `!` is a broken rule of Metal's, and no text here has one.

use anymlx::{
    Completion, DType, MetalOptions, MlxBufferPool, MlxDevice, RecorderOptions, Run, StorageMode, TraceLog, read, write,
};

use crate::support::{add_one, assert_error, dispatch, failed, poisoned, u32s, values};

fn open(recorder: RecorderOptions, metal: MetalOptions) -> (MlxDevice, TraceLog) {
    let device = MlxDevice::metal_recorder(&RecorderOptions { run: Run::Host, ..recorder }, &metal).unwrap();
    let log = device.trace_log().unwrap().clone();
    (device, log)
}

/// With the kernels compiled.
fn prepared(completion: Completion) -> (MlxDevice, TraceLog) {
    let (device, log) = open(RecorderOptions { completion, ..RecorderOptions::default() }, MetalOptions::default());
    add_one(&device);
    let mut encoder = device.command_encoder().unwrap();
    let warm = u32s(&device, &[0; 8]);
    encoder.copy_bytes(&warm.slice_view(0, 4), &warm.slice_view(16, 4)).unwrap();
    encoder.commit_and_wait().unwrap();
    drop(warm);
    device.command_encoder().unwrap().commit_and_wait().unwrap();
    log.take();
    (device, log)
}

#[track_caller]
fn assert_log(log: &TraceLog, expected: &str) {
    let lines: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let taken = log.take();
    assert!(taken == lines, "recorded:\n{}\nexpected:\n{}", taken.join("\n"), lines.join("\n"));
}

#[track_caller]
fn assert_rules_held(lines: &[String]) {
    let broken: Vec<_> = lines.iter().filter(|line| line.starts_with('!')).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn opening_compiling_and_the_first_submission() {
    let (device, log) = open(RecorderOptions::default(), MetalOptions::default());
    let buffer = u32s(&device, &[1; 8]);
    add_one(&device);
    let mut encoder = device.command_encoder_labeled("first").unwrap();
    encoder.copy_bytes(&buffer.slice_view(0, 4), &buffer.slice_view(16, 4)).unwrap();
    encoder.commit_and_wait().unwrap();
    assert_log(
        &log,
        r#"
        residency new
        residency attach
        newBuffer b1 32 shared
        residency + b1
        newLibrary l1 Metal3_0
        newPipeline p1 add_one of l1
        newLibrary l2 Metal3_0
        newPipeline p2 copy_bytes of l2
        newPipeline p3 copy_vectors of l2
        newPipeline p4 fill_bytes of l2
        residency commit
        residency request
        newBuffer b2 16384 shared
        commandBuffer c1 "first"
        computeEncoder c1 concurrent
        setBuffer 30 b2+0
        setPipeline p3
        setBuffer 0 b1+0
        setBuffer 1 b1+16
        setBytes 2 [8]
        dispatch 1x1x1 of 256
        endEncoding
        onCompleted c1
        commit c1
        wait c1
        status c1 completed
        "#,
    );
    drop((encoder, buffer));
    drop(device);
    assert_log(
        &log,
        r#"
        residency - b1
        release b1
        residency commit
        residency end
        residency detach
        release b2
        "#,
    );
}

#[test]
fn two_operations_in_a_chain() {
    let (device, log) = prepared(Completion::AtCommit);
    let (a, b, c) = (u32s(&device, &[1; 4]), u32s(&device, &[0; 4]), u32s(&device, &[0; 4]));
    let mut encoder = device.command_encoder_labeled("chain").unwrap();
    dispatch(&mut encoder, &add_one(&device), &[read(&a), write(&b)], 4);
    dispatch(&mut encoder, &add_one(&device), &[read(&b), write(&c)], 4);
    encoder.commit_and_wait().unwrap();
    assert_log(
        &log,
        r#"
        newBuffer b3 16 shared
        residency + b3
        newBuffer b4 16 shared
        residency + b4
        newBuffer b5 16 shared
        residency + b5
        residency commit
        commandBuffer c3 "chain"
        computeEncoder c3 concurrent
        setBuffer 30 b2+0
        setPipeline p1
        setBuffer 0 b3+0
        setBuffer 1 b4+0
        dispatch 4x1x1 of 32
        barrier buffers
        setBuffer 0 b4+0
        setBuffer 1 b5+0
        dispatch 4x1x1 of 32
        endEncoding
        onCompleted c3
        commit c3
        wait c3
        status c3 completed
        "#,
    );
    assert_eq!(values(&c), [3; 4]);
}

#[test]
fn disjoint_slices_need_no_barrier() {
    let (device, log) = prepared(Completion::AtCommit);
    let buffer = u32s(&device, &[1; 16]);
    let [a, b, c, d] = [0, 16, 32, 48].map(|at| buffer.slice_view(at, 4));
    log.take();
    let mut encoder = device.command_encoder_labeled("slices").unwrap();
    dispatch(&mut encoder, &add_one(&device), &[read(&a), write(&b)], 4);
    dispatch(&mut encoder, &add_one(&device), &[read(&a), write(&c)], 4);
    encoder.fill_bytes(&d.slice_view(4, 2), 1).unwrap();
    encoder.commit_and_wait().unwrap();
    assert_log(
        &log,
        r#"
        residency commit
        commandBuffer c3 "slices"
        computeEncoder c3 concurrent
        setBuffer 30 b2+0
        setPipeline p1
        setBuffer 0 b3+0
        setBuffer 1 b3+16
        dispatch 4x1x1 of 32
        setBuffer 0 b3+0
        setBuffer 1 b3+32
        dispatch 4x1x1 of 32
        setPipeline p4
        setBuffer 0 b3+52
        setBytes 1 [8]
        dispatch 1x1x1 of 256
        endEncoding
        onCompleted c3
        commit c3
        wait c3
        status c3 completed
        "#,
    );
    assert_eq!(values(&buffer), [[1; 4], [2; 4], [2; 4], [1, 0x0101_0101, 0x0101_0101, 1]].concat());
}

#[test]
fn a_decode_step_over_a_pool_allocates_once() {
    let (device, log) = prepared(Completion::AtCommit);
    let (input, output) = (u32s(&device, &[1; 33]), u32s(&device, &[0; 33]));
    let mut pool = MlxBufferPool::new();
    let mut step = || {
        let mut encoder = device.command_encoder_labeled("step").unwrap();
        let first = encoder.scratch(&mut pool, DType::U32, &[33]).unwrap();
        let second = encoder.scratch(&mut pool, DType::U32, &[33]).unwrap();
        dispatch(&mut encoder, &add_one(&device), &[read(&input), write(&first)], 33);
        dispatch(&mut encoder, &add_one(&device), &[read(&input), write(&second)], 33);
        dispatch(&mut encoder, &add_one(&device), &[read(&first), write(&output)], 33);
        encoder.commit_and_wait().unwrap();
    };
    log.take();
    let commands = |number: usize, [first, second]: [&str; 2]| {
        format!(
            "commandBuffer c{number} \"step\"
            computeEncoder c{number} concurrent
            setBuffer 30 b2+0
            setPipeline p1
            setBuffer 0 b3+0
            setBuffer 1 {first}+0
            dispatch 33x1x1 of 32
            setBuffer 0 b3+0
            setBuffer 1 {second}+0
            dispatch 33x1x1 of 32
            barrier buffers
            setBuffer 0 {first}+0
            setBuffer 1 b4+0
            dispatch 33x1x1 of 32
            endEncoding
            onCompleted c{number}
            commit c{number}
            wait c{number}
            status c{number} completed"
        )
    };
    step();
    let allocations = "newBuffer b5 144 shared\nnewBuffer b6 144 shared\nresidency commit\n";
    assert_log(&log, &(allocations.to_owned() + &commands(3, ["b5", "b6"])));
    for number in 4..7 {
        step();
        let lines = log.take();
        // Which of the two blocks comes first is the pool's affair.
        let either = [["b5", "b6"], ["b6", "b5"]].map(|order| commands(number, order));
        let taken = lines.join("\n");
        assert!(either.iter().any(|text| text.replace("            ", "") == taken), "{taken}");
    }
    assert_eq!(values(&output), [3; 33]);
}

#[test]
fn a_buffer_dropped_in_flight_is_released_after_the_work() {
    let (device, log) = prepared(Completion::AtWait);
    let buffer = u32s(&device, &[1; 4]);
    log.take();
    let mut encoder = device.command_encoder_labeled("uses it").unwrap();
    encoder.fill_bytes(&buffer, 1).unwrap();
    let submission = encoder.commit().unwrap();
    drop(buffer);
    let mut after = device.command_encoder_labeled("after").unwrap().commit().unwrap();
    let submitted = log.take();
    assert_rules_held(&submitted);
    assert!(!submitted.iter().any(|line| line == "release b3" || line == "residency - b3"), "{submitted:?}");
    assert!(!submission.is_done());
    submission.wait().unwrap();
    assert_log(&log, "wait c3\nstatus c3 completed\nresidency - b3\nrelease b3");
    after = device.command_encoder_labeled("boundary").unwrap().commit().unwrap_or(after);
    let boundary = log.take();
    assert_eq!(boundary.iter().filter(|line| *line == "residency commit").count(), 1, "{boundary:?}");
    after.wait().unwrap();
}

#[test]
fn submissions_are_waited_for_in_any_order_and_end_in_theirs() {
    let (device, log) = prepared(Completion::AtWait);
    let buffer = u32s(&device, &[0; 4]);
    let submit = |value: u8| {
        let mut encoder = device.command_encoder_labeled(&format!("fill {value}")).unwrap();
        encoder.fill_bytes(&buffer, value).unwrap();
        encoder.commit().unwrap()
    };
    let (first, second) = (submit(1), submit(2));
    log.take();
    second.wait().unwrap();
    first.wait().unwrap();
    let lines = log.take();
    assert_eq!(lines[..2], ["wait c4", "status c4 completed"], "{lines:?}");
    assert_rules_held(&lines);
    assert_eq!(values(&buffer), [0x0202_0202; 4]);
}

#[test]
fn the_error_of_a_command_buffer_is_read_after_the_wait() {
    let (device, log) = prepared(Completion::AtWait);
    let (a, b) = (u32s(&device, &[1; 4]), u32s(&device, &[0; 4]));
    device.fail_next_submission("Caused GPU Timeout Error").unwrap();
    log.take();
    let mut encoder = device.command_encoder_labeled("doomed").unwrap();
    dispatch(&mut encoder, &add_one(&device), &[read(&a), write(&b)], 4);
    let doomed = encoder.commit().unwrap();
    let mut encoder = device.command_encoder_labeled("reader").unwrap();
    encoder.copy_bytes(&b, &a).unwrap();
    let reader = encoder.commit().unwrap();
    let submitted = log.take();
    assert!(!submitted.iter().any(|line| line.starts_with("status")), "nothing is asked before the end: {submitted:?}");
    assert_error(doomed.wait(), failed, &["doomed", "Caused GPU Timeout Error"]);
    assert_log(&log, "wait c3\nstatus c3 error");
    assert_error(doomed.wait(), failed, &["doomed", "Caused GPU Timeout Error"]);
    assert_log(&log, "");
    assert_error(b.to_vec::<u32>(), poisoned, &["doomed"]);
    assert_error(reader.wait(), failed, &["reader", "failed to write"]);
}

#[test]
fn a_graph_is_a_list_that_is_encoded_anew() {
    let (device, log) = prepared(Completion::AtCommit);
    let (a, b) = (u32s(&device, &[1; 4]), u32s(&device, &[0; 4]));
    log.take();
    let graph = device.record_labeled("decode", |encoder| encoder.copy_bytes(&a, &b)).unwrap();
    assert_log(&log, "");
    let run = |number: usize| {
        format!(
            "commandBuffer c{number} \"decode\"
            computeEncoder c{number} concurrent
            setBuffer 30 b2+0
            setPipeline p3
            setBuffer 0 b3+0
            setBuffer 1 b4+0
            setBytes 2 [8]
            dispatch 1x1x1 of 256
            endEncoding
            onCompleted c{number}
            commit c{number}
            wait c{number}
            status c{number} completed"
        )
    };
    graph.replay().unwrap().wait().unwrap();
    assert_log(&log, &("residency commit\n".to_owned() + &run(3)));
    graph.replay().unwrap().wait().unwrap();
    assert_log(&log, &run(4));
}

#[test]
fn private_memory_is_filled_and_reached_by_the_gpu() {
    let (device, log) = prepared(Completion::AtCommit);
    let buffer = device.alloc_buffer_with(20, DType::U32, vec![5], StorageMode::Private).unwrap();
    let lines = log.take();
    assert_eq!(lines[0], "newBuffer b3 20 private");
    assert!(lines.iter().any(|line| line == "commandBuffer c3 \"zeros\""), "{lines:?}");
    assert_eq!(buffer.to_vec::<u32>().unwrap(), [0; 5]);
    buffer.copy_from_slice(&[7_u32; 5]).unwrap();
    assert_eq!(buffer.to_vec::<u32>().unwrap(), [7; 5]);
    let lines = log.take();
    assert_rules_held(&lines);
    assert_eq!(lines.iter().filter(|line| line.ends_with("\"transfer\"")).count(), 3, "{lines:?}");
}

#[test]
fn without_a_residency_set_work_goes_on() {
    let refused = RecorderOptions { residency_failure: Some("no".into()), ..RecorderOptions::default() };
    let old = RecorderOptions { without_residency_sets: true, ..RecorderOptions::default() };
    let off = MetalOptions { without_residency_set: true, ..MetalOptions::default() };
    for (recorder, metal) in
        [(refused, MetalOptions::default()), (old, MetalOptions::default()), (RecorderOptions::default(), off)]
    {
        let (device, log) = open(recorder, metal);
        assert!(!device.residency_sets_enabled());
        let buffer = u32s(&device, &[1; 4]);
        let mut encoder = device.command_encoder().unwrap();
        encoder.fill_bytes(&buffer, 3).unwrap();
        encoder.commit_and_wait().unwrap();
        assert_eq!(values(&buffer), [0x0303_0303; 4]);
        let residency: Vec<String> = log.take().into_iter().filter(|line| line.starts_with("residency")).collect();
        assert!(residency.is_empty() || residency == ["residency new"], "{residency:?}");
    }
    let (device, _) = prepared(Completion::AtCommit);
    assert!(device.residency_sets_enabled());
}

#[test]
fn a_capture_names_commands_and_ends() {
    let metal = MetalOptions { capture: Some("never-written.gputrace".into()), ..MetalOptions::default() };
    let (device, log) = open(RecorderOptions::default(), metal);
    let buffer = u32s(&device, &[1; 4]);
    let submit = || {
        let mut encoder = device.command_encoder().unwrap();
        encoder.push_label("layer 0").unwrap();
        encoder.fill_bytes(&buffer, 3).unwrap();
        encoder.pop_label().unwrap();
        encoder.commit_and_wait().unwrap();
    };
    submit();
    let lines = log.take();
    assert_eq!(lines[0], "startCapture");
    let groups: Vec<_> = lines.iter().filter(|line| line.contains("Group")).map(String::as_str).collect();
    assert_eq!(groups, ["pushGroup \"layer 0\"", "pushGroup \"fill\"", "popGroup", "popGroup"]);
    (1..40).for_each(|_| submit());
    assert_eq!(log.take().iter().filter(|line| *line == "stopCapture").count(), 1);
}

#[test]
fn what_metal_would_refuse_is_refused_first() {
    let (device, _) = open(
        RecorderOptions { max_buffer_bytes: Some(1 << 20), ..RecorderOptions::default() },
        MetalOptions::default(),
    );
    assert_error(
        device.zeros(DType::U8, [(1 << 20) + 1]),
        crate::support::no_memory,
        &["1048577", "larger than any buffer"],
    );
    let (a, b) = (u32s(&device, &[1; 4]), u32s(&device, &[0; 4]));
    let mut encoder = device.command_encoder().unwrap();
    let wrong = |groups, threads_per_group| anymlx::Launch { groups, threads_per_group, items: 1, items_per_chunk: 1 };
    for (launch, part) in [
        (wrong([1, 1, 1], 33), "33 threads"),
        (wrong([1, 1, 1], 2048), "2048 threads"),
        (wrong([1, 0, 1], 32), "groups"),
    ] {
        let result = encoder.dispatch(&add_one(&device), &[read(&a), write(&b)], &(), launch);
        assert_error(result, crate::support::invalid, &["add_one", part]);
    }
}

#[test]
fn a_thousand_steps_leave_nothing_behind() {
    let (device, log) = prepared(Completion::AtWait);
    let (input, output) = (u32s(&device, &[1; 33]), u32s(&device, &[0; 33]));
    let mut pool = MlxBufferPool::new();
    let graph = device.record(|encoder| encoder.copy_bytes(&output, &input)).unwrap();
    let recorder = device.recorder().unwrap();
    let mut most = recorder.live();
    let mut early = None;
    for number in 0..1000 {
        let weights = u32s(&device, &[1; 33]);
        let mut encoder = device.command_encoder().unwrap();
        let scratch = encoder.scratch(&mut pool, DType::U32, &[33]).unwrap();
        dispatch(&mut encoder, &add_one(&device), &[read(&input), write(&scratch)], 33);
        dispatch(&mut encoder, &add_one(&device), &[read(&weights), write(&output)], 33);
        let submission = encoder.commit().unwrap();
        drop((scratch, weights));
        graph.replay().unwrap();
        let live = recorder.live();
        most.command_buffers = most.command_buffers.max(live.command_buffers);
        most.buffers = most.buffers.max(live.buffers);
        if number % 8 == 7 {
            submission.wait().unwrap();
            drop(submission);
            device.synchronize();
            assert_rules_held(&log.take());
            let live = recorder.live();
            assert_eq!((live.command_buffers, live.encoders, live.libraries), (0, 0, 2), "step {number}");
            if number == 79 {
                early = Some(live);
            }
        }
    }
    assert_eq!(early, Some(recorder.live()), "objects after 80 steps and after 1000");
    // Two of each step: eight steps overlap.
    assert!(most.command_buffers <= 16 && most.buffers <= 32, "{most:?}");
}

#[test]
fn the_documentation_names_tests_that_exist() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(folder.join("../../docs/metal.md")).unwrap();
    let (_, table) = page.split_once("## The contract").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let quoted = table.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::"));
    let mut count = 0;
    for (module, test) in
        quoted.filter(|(module, test)| *module != "metal_recorder" && *test != "test" && *test != "tests")
    {
        let path = folder.join("tests/conformance").join(module).with_extension("rs");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.contains(&format!("fn {test}(")), "docs/metal.md names {module}::{test}");
        count += 1;
    }
    assert!(count > 50, "{count} tests named");
}

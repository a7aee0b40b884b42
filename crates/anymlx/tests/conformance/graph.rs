//! Record once, run many.

use anymlx::{read, write};

use crate::{
    subject::Subject,
    support::{Gate, add_one, assert_error, dispatch, eventually, held, in_flight, submit_add_one, u32s, values},
};

pub fn values_come_from_buffers(subject: &Subject) {
    let device = &subject.device;
    let (input, middle, output) = (u32s(device, &[0; 33]), u32s(device, &[0; 33]), u32s(device, &[0; 33]));
    let add_one = add_one(device);
    let graph = device
        .record_labeled("decode", |encoder| {
            dispatch(encoder, &add_one, &[read(&input), write(&middle)], 33);
            dispatch(encoder, &add_one, &[read(&middle), write(&output)], 33);
            Ok(())
        })
        .unwrap();
    assert_eq!(graph.label(), "decode");
    assert_eq!(values(&output), [0; 33], "recording runs nothing");
    for step in 0..20 {
        input.copy_from_slice(&[step; 33]).unwrap();
        let submission = graph.replay().unwrap();
        assert_eq!(submission.label(), "decode");
        submission.wait().unwrap();
        assert_eq!(values(&output), [step + 2; 33]);
    }
    let refused = device.record(|encoder| encoder.copy_bytes(&input, &output.slice_view(0, 1)));
    assert_error(refused, crate::support::invalid, &["copy"]);
}

pub fn a_graph_keeps_its_buffers(subject: &Subject) {
    let device = &subject.device;
    let output = u32s(device, &[0; 256]);
    let graph = {
        let input = u32s(device, &[7; 256]);
        device
            .record(|encoder| {
                encoder.dispatch(&add_one(device), &[read(&input), write(&output)], &(), crate::support::launch(256))
            })
            .unwrap()
    };
    assert_eq!((device.info().memory_in_use, device.residency_stats().removes), (2048, 0));
    for _ in 0..3 {
        output.copy_from_slice(&[0_u32; 256]).unwrap();
        graph.replay().unwrap().wait().unwrap();
        assert_eq!(values(&output), [8; 256]);
    }
    drop(graph);
    assert_eq!((device.info().memory_in_use, device.residency_stats().removes), (1024, 1));
}

pub fn a_guard_refuses_a_replay_and_the_graph_stays_usable(subject: &Subject) {
    let device = &subject.device;
    let (input, output) = (u32s(device, &[1; 4]), u32s(device, &[0; 4]));
    let graph = device
        .record(|encoder| {
            encoder.dispatch(&add_one(device), &[read(&input), write(&output)], &(), crate::support::launch(4))
        })
        .unwrap();
    let reading = output.read::<u32>().unwrap();
    assert_error(graph.replay(), held, &["submit", "read guard"]);
    drop(reading);
    let mut writing = input.write::<u32>().unwrap();
    assert_error(graph.replay(), held, &["submit", "write guard"]);
    writing.fill(4);
    drop(writing);
    let reading = input.read::<u32>().unwrap();
    graph.replay().unwrap().wait().unwrap();
    assert_eq!((values(&output), reading[0]), (vec![5; 4], 4));
}

pub fn replays_run_in_order_with_other_work(subject: &Subject) {
    let device = &subject.device;
    let (a, b) = (u32s(device, &[0; 4]), u32s(device, &[0; 4]));
    let there = device
        .record(|encoder| encoder.dispatch(&add_one(device), &[read(&a), write(&b)], &(), crate::support::launch(4)))
        .unwrap();
    for _ in 0..100 {
        there.replay().unwrap();
        submit_add_one(device, &b, &a).unwrap();
    }
    there.replay().unwrap().wait().unwrap();
    assert_eq!((values(&a), values(&b)), (vec![200; 4], vec![201; 4]));
}

pub fn a_graph_may_be_dropped_in_flight(subject: &Subject) {
    let device = &subject.device;
    let gate = Gate::new(device);
    let mut output = u32s(device, &[0; 256]);
    let submission = {
        let input = u32s(device, &[7; 256]);
        let graph = device
            .record(|encoder| {
                dispatch(encoder, gate.kernel(1), &[read(&input)], 1);
                dispatch(encoder, &add_one(device), &[read(&input), write(&output)], 256);
                Ok(())
            })
            .unwrap();
        graph.replay().unwrap()
    };
    assert_error(output.as_mut_slice::<u32>().map(|_| ()), in_flight, &["as_mut_slice"]);
    assert_eq!(device.info().memory_in_use, 2048);
    gate.open();
    submission.wait().unwrap();
    assert_eq!(output.as_mut_slice::<u32>().unwrap(), [8; 256]);
    eventually("the input goes", || device.info().memory_in_use == 1024);
}

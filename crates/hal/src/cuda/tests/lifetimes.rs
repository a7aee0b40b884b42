//! Nothing is left behind.

use std::sync::Arc;

use super::{Args, device, floats, kernel, read, record, submit_one};
use crate::backend::{Device as _, Pending as _, StorageMode};

/// Bytes that others on the machine may take or free while a test runs.
const NOISE: u64 = 64 << 20;

#[test]
fn a_thousand_rounds_leave_memory_flat() {
    let Some(device) = device() else { return };
    let add = kernel(&device, "add_amount");
    let round = || {
        let x = floats(&device, &vec![1.0; 300_000]);
        let scratch = device.allocate(1 << 20, StorageMode::Private).expect("allocates");
        let mut encoder = device.encoder().expect("encoder");
        record(&mut encoder, &add, &[&x], Args { amount: 1.0, count: 300_000 }).expect("records");
        let graph = Arc::new(device.instantiate(encoder, "graph").expect("instantiates"));
        let replayed = device.replay(&graph).expect("replays");
        submit_one(&device, "submitted", &add, &x, 1).wait().expect("runs");
        drop((graph, replayed, scratch));
        x
    };
    let last = round();
    let before = device.info();
    for _ in 0..1000 {
        drop(round());
    }
    let after = device.info();
    assert_eq!(after.memory_in_use, before.memory_in_use);
    let grown = before.memory_free.saturating_sub(after.memory_free);
    eprintln!("free before {}, after {}", before.memory_free, after.memory_free);
    assert!(grown < NOISE, "{grown} bytes are gone");
    assert_eq!(read::<f32>(&device, &last)[..2], [3.0, 2.0]);
}

#[test]
fn replays_leave_memory_flat() {
    let Some(device) = device() else { return };
    let (add, x) = (kernel(&device, "add_amount"), floats(&device, &[0.0; 32]));
    let mut encoder = device.encoder().expect("encoder");
    record(&mut encoder, &add, &[&x], Args { amount: 1.0, count: 32 }).expect("records");
    let graph = Arc::new(device.instantiate(encoder, "graph").expect("instantiates"));
    device.replay(&graph).expect("replays").wait().expect("runs");
    let before = device.info().memory_free;
    for _ in 0..2000 {
        let pending: Vec<_> = (0..50).map(|_| device.replay(&graph).expect("replays")).collect();
        pending.last().map(|last| last.wait().expect("runs"));
    }
    let grown = before.saturating_sub(device.info().memory_free);
    assert!(grown < NOISE, "{grown} bytes are gone");
    assert_eq!(read::<f32>(&device, &x), [100_001.0; 32]);
}

#[test]
fn devices_opened_and_dropped_leave_nothing() {
    let Some(watcher) = device() else { return };
    let round = || {
        let device = device().expect("opens");
        let (spin, x) = (kernel(&device, "spin"), floats(&device, &[0.0]));
        let pending = submit_one(&device, "last words", &spin, &x, 100);
        // The device goes before what it made.
        drop(device);
        pending.wait().expect("runs");
    };
    round();
    let before = watcher.info().memory_free;
    for _ in 0..10 {
        round();
    }
    let grown = before.saturating_sub(watcher.info().memory_free);
    eprintln!("{grown} bytes less after 10 rounds");
    assert!(grown < NOISE, "{grown} bytes are gone");
}

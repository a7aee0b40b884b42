use super::*;
use crate::{Access, Binding, Context, Residency, StorageMode, any, emulator::EmulatorOptions, trace::TraceLog};

fn open(run: Run) -> crate::Result<(Context, TraceLog)> {
    let recorder = MetalRecorder::new(&RecorderOptions { run, ..RecorderOptions::default() })?;
    let log = recorder.log();
    let device = Device::with_api(recorder, &MetalOptions::default())?;
    Ok((Context::new(any::Device::MetalRecorder(device)), log))
}

/// The text of the copies and fills, and the Rust that stands in for it without a compiler.
#[test]
fn copies_and_fills_take_bytes_and_vectors() {
    let cache = std::env::temp_dir().join("anymlx-hal-metal-tests");
    for run in [Run::Nothing, Run::Emulator(EmulatorOptions::new(cache))] {
        let (context, log) = match open(run) {
            Ok(opened) => opened,
            Err(error) => {
                eprintln!("skipped: emulator: {error}");
                continue;
            }
        };
        let storage = context.allocate(4096, StorageMode::Shared, Residency::Stay).unwrap();
        let bytes: Vec<u8> = (0..2048).map(|i| (i % 251) as u8).collect();
        storage.write_bytes(0, &bytes).unwrap();
        let part = |offset, byte_len, access| Binding { storage: &storage, offset, byte_len, access };
        let mut expected = [bytes.clone(), vec![0; 2048]].concat();
        let mut recorder = context.recorder("transfers").unwrap();
        for (from, to, len) in [(0, 2048, 1024), (3, 3072, 16), (16, 3100, 33), (7, 3201, 300)] {
            recorder.copy(part(from, len, Access::Read), part(to, len, Access::Write)).unwrap();
            expected.copy_within(from as usize..(from + len) as usize, to as usize);
        }
        recorder.fill(part(4001, 77, Access::Write), 0xa5).unwrap();
        expected[4001..4078].fill(0xa5);
        recorder.commit().unwrap().wait().unwrap();
        let mut found = vec![0; 4096];
        storage.read_bytes(0, &mut found).unwrap();
        assert!(found == expected);
        let lines = log.take();
        let pipelines = lines.iter().filter(|line| line.starts_with("setPipeline")).map(String::as_str);
        assert_eq!(pipelines.collect::<Vec<_>>(), ["setPipeline p2", "setPipeline p1", "setPipeline p3"]);
        assert!(!lines.iter().any(|line| line.starts_with('!')), "{lines:?}");
    }
}

#[test]
fn gpus_that_are_no_apple_gpus_are_refused() {
    let facts = |apple_family, unified| Facts {
        name: "Some GPU".into(),
        registry_id: 1,
        system: String::new(),
        unified,
        max_buffer_bytes: 1,
        working_set_bytes: 1,
        threadgroup_bytes: 32 * 1024,
        apple_family,
        residency_sets: false,
    };
    assert!(device::check(&facts(7, true)).is_ok());
    for refused in [facts(0, false), facts(6, true), facts(7, false)] {
        let message = device::check(&refused).unwrap_err().to_string();
        assert!(message.contains("Some GPU is no Apple GPU of family 7"), "{message}");
    }
}

use std::path::Path;

use super::*;

fn table<'a>(rows: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
    move |name| rows.iter().find(|(row, _)| *row == name).map(|(_, value)| OsString::from(value))
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.expect_err("an error").to_string()
}

#[test]
fn unset_and_empty_are_the_default() {
    for lookup in [&table(&[]) as Lookup, &|_| Some(OsString::new())] {
        assert_eq!(parse_device(lookup).unwrap(), None);
        assert_eq!(parse_threads(lookup).unwrap(), None);
        assert_eq!(parse_cpu_level(lookup).unwrap(), None);
        assert!(!parse_lock_memory(lookup).unwrap());
        assert!(parse_switch(lookup, "ANYMLX_RESIDENCY_SET", true).unwrap());
        assert_eq!(parse_hub_endpoint(lookup).unwrap(), None);
    }
}

#[test]
fn good_values() {
    for device in ["cpu", "cuda:3", "metal", "trace"] {
        assert_eq!(parse_device(&table(&[("ANYMLX_DEVICE", device)])).unwrap().as_deref(), Some(device));
    }
    assert_eq!(parse_threads(&table(&[("ANYMLX_THREADS", "1024")])).unwrap(), Some(1024));
    assert_eq!(parse_cpu_level(&table(&[("ANYMLX_CPU", "avx2")])).unwrap(), Some(CpuLevel::Avx2));
    assert_eq!(
        parse_emulator(&table(&[("ANYMLX_EMULATOR", "thread")])).unwrap(),
        Some(EmulatorMode::Every(Sanitizer::Thread))
    );
    assert_eq!(parse_emulator(&table(&[("ANYMLX_EMULATOR", "watched")])).unwrap(), Some(EmulatorMode::Watched));
    assert_eq!(parse_emulator(&table(&[("ANYMLX_EMULATOR", "off")])).unwrap(), None);
    let schedule = |value| parse_emulator_schedule(&table(&[("ANYMLX_EMULATOR_SCHEDULE", value)])).unwrap();
    assert_eq!([schedule("reverse"), schedule("17")], [Schedule::Reverse, Schedule::Shuffled(17)]);
    for (value, locked) in [("1", true), ("ON", true), ("true", true), ("0", false), ("off", false), ("False", false)] {
        assert_eq!(parse_lock_memory(&table(&[("ANYMLX_LOCK_MEMORY", value)])).unwrap(), locked, "{value}");
    }
    let endpoint = parse_hub_endpoint(&table(&[("HF_ENDPOINT", "https://hub.example/")])).unwrap();
    assert_eq!(endpoint.as_deref(), Some("https://hub.example"));
}

#[test]
fn bad_values_name_variable_value_and_what_is_needed() {
    for value in ["gpu", "cuda:x", "cuda:-1", "CPU "] {
        let text = message(parse_device(&table(&[("ANYMLX_DEVICE", value)])));
        assert_eq!(text, format!("environment: ANYMLX_DEVICE is `{value}`, needed cpu, cuda:N, metal or trace"));
    }
    for value in ["0", "1025", "-1", "two", "1.5", "99999999999999999999"] {
        let text = message(parse_threads(&table(&[("ANYMLX_THREADS", value)])));
        assert_eq!(text, format!("environment: ANYMLX_THREADS is `{value}`, needed a number from 1 to 1024"));
    }
    let text = message(parse_cpu_level(&table(&[("ANYMLX_CPU", "sse")])));
    assert_eq!(text, "environment: ANYMLX_CPU is `sse`, needed scalar, avx2 or avx512");
    let text = message(parse_emulator(&table(&[("ANYMLX_EMULATOR", "asan")])));
    assert_eq!(text, "environment: ANYMLX_EMULATOR is `asan`, needed plain, address, thread, watched or off");
    let text = message(parse_emulator_schedule(&table(&[("ANYMLX_EMULATOR_SCHEDULE", "-1")])));
    assert_eq!(text, "environment: ANYMLX_EMULATOR_SCHEDULE is `-1`, needed forward, reverse or a number");
    let text = message(parse_lock_memory(&table(&[("ANYMLX_LOCK_MEMORY", "yes please")])));
    assert_eq!(text, "environment: ANYMLX_LOCK_MEMORY is `yes please`, needed 1, true, on, 0, false or off");
    let text = message(parse_hub_endpoint(&table(&[("HF_ENDPOINT", "hub.example")])));
    assert_eq!(text, "environment: HF_ENDPOINT is `hub.example`, needed a URL such as https://huggingface.co");
}

#[cfg(unix)]
#[test]
fn text_must_be_utf8_but_folders_need_not() {
    use std::os::unix::ffi::OsStringExt;
    let lookup = |_: &str| Some(OsString::from_vec(vec![b'/', 0xff]));
    assert!(message(parse_device(&lookup)).contains("needed text in UTF-8"));
    assert_eq!(parse_cache_dir(&lookup, Platform::Xdg).unwrap().as_os_str(), &*lookup("").unwrap());
}

#[test]
fn cache_folder_by_platform() {
    use Platform::{MacOs, Windows, Xdg};
    let at = |rows: &[(&str, &str)], platform| parse_cache_dir(&table(rows), platform).unwrap();
    let home = ("HOME", "/home/me");
    assert_eq!(at(&[("ANYMLX_CACHE", "here"), home], Xdg), Path::new("here"));
    assert_eq!(at(&[home], Xdg), Path::new("/home/me/.cache/anymlx"));
    assert_eq!(at(&[("XDG_CACHE_HOME", "/caches"), home], Xdg), Path::new("/caches/anymlx"));
    assert_eq!(at(&[("XDG_CACHE_HOME", "relative"), home], Xdg), Path::new("/home/me/.cache/anymlx"));
    assert_eq!(at(&[("XDG_CACHE_HOME", "/caches"), home], MacOs), Path::new("/home/me/Library/Caches/anymlx"));
    assert_eq!(at(&[("LOCALAPPDATA", "local")], Windows), Path::new("local").join("anymlx"));
    for platform in [Xdg, MacOs, Windows] {
        assert!(message(parse_cache_dir(&table(&[]), platform)).contains("set ANYMLX_CACHE"));
    }
}

#[test]
fn unknown_names_get_the_nearest_known_one() {
    let names = ["ANYMLX_THREAD", "PATH", "ANYMLX_DEVICE", "ANYMLX_COMPLETELY_DIFFERENT", "HF_HOME", "ANYMLX_"];
    let found = unknown(names.into_iter().map(OsString::from));
    let expected =
        [("ANYMLX_", None), ("ANYMLX_COMPLETELY_DIFFERENT", None), ("ANYMLX_THREAD", Some("ANYMLX_THREADS"))];
    assert_eq!(found, expected.map(|(name, nearest)| (name.to_owned(), nearest)));
}

#[test]
fn the_document_shows_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/env.md");
    let document = std::fs::read_to_string(&file).unwrap();
    let table = markdown_table();
    assert!(document.contains(&table), "{} must contain this table:\n\n{table}", file.display());
}

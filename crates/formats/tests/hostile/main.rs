//! Whatever a file says, reading it neither panics nor takes more memory than a small multiple of its bytes.
//!
//! Inputs are the corpora of the fuzzer, in `fuzz/corpus/` of the repository, random changes of them, and headers that announce
//! as much as could be there.

#[allow(dead_code, reason = "the tests of lm use all of it")]
mod allocation;
mod corpus;
mod mutate;
mod pretending;
mod targets;

use std::sync::Barrier;

use allocation::{Budget, bounded};
use anymlx_formats::safetensors::Safetensors;
use corpus::corpus;
use mutate::Random;
use targets::{TARGETS, Target, Verdict};

#[derive(Default)]
struct Tally {
    inputs: usize,
    accepted: usize,
    worst: f64,
}

impl Tally {
    fn add(&mut self, verdict: Verdict) {
        self.inputs += 1;
        self.accepted += usize::from(verdict.accepted);
        self.worst = self.worst.max(verdict.peak);
    }
}

/// The runner of tests starts threads and collects their output while a test counts.
#[test]
fn memory_of_other_threads_is_not_counted() {
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            barrier.wait();
            drop(std::hint::black_box(vec![1_u8; 1 << 20]));
            barrier.wait();
        });
        let none = Budget { constant: 0, multiple: 0 };
        bounded(none, 0, || {
            barrier.wait();
            barrier.wait();
        });
        other.join().expect("the other thread does not fail");
    });
}

#[test]
#[should_panic(expected = "4097 bytes of memory for an input of 0 bytes, 4096 are allowed")]
fn memory_over_the_budget_fails() {
    bounded(Budget::HEADER, 0, || std::hint::black_box(vec![1_u8; 4097]));
}

#[test]
fn the_corpora_are_judged_as_their_names_say() {
    for (name, target) in TARGETS {
        let (mut valid, mut broken) = (0, 0);
        for (file, input) in corpus(name) {
            let accepted = target(&input).accepted;
            match file.split('-').next() {
                Some("valid") => valid += usize::from(accepted),
                Some("broken") => broken += usize::from(!accepted),
                _ => continue,
            }
            assert_eq!(accepted, file.starts_with("valid-"), "{name}/{file}");
        }
        assert!(valid >= 3 && broken >= 8, "{name}: only {valid} valid and {broken} broken seeds");
    }
}

#[test]
fn false_announcements_take_no_memory() {
    for fill in [100, 10_000, 1_000_000] {
        let mut tally = Tally::default();
        let mut run = |target: Target, inputs: Vec<(String, Vec<u8>)>| {
            for (what, input) in inputs {
                println!("{what}, {} bytes", input.len());
                tally.add(target(&input));
            }
        };
        run(targets::gguf, pretending::gguf(fill));
        let raw = |(what, file): (String, Vec<u8>)| (what, [&[0], file.as_slice()].concat());
        run(targets::safetensors, pretending::safetensors(fill).into_iter().map(raw).collect());
        run(targets::safetensors_index, pretending::objects(fill));
        run(targets::mlx_config, pretending::objects(fill));
        assert!(tally.accepted >= 7, "only {} of the well-formed inputs were accepted", tally.accepted);
        println!(
            "{fill}: {} inputs, worst peak {:.1} x input, allowed {}",
            tally.inputs,
            tally.worst,
            Budget::HEADER.multiple
        );
    }
}

#[test]
fn changed_files_are_judged_with_bounded_memory() {
    for (name, target) in TARGETS {
        let text = name.starts_with("safetensors") || name == "mlx_config";
        let (valid, others): (Vec<_>, Vec<_>) =
            corpus(name).into_iter().partition(|(file, _)| file.starts_with("valid-"));
        let mut random = Random(0x5eed);
        let mut tally = Tally::default();
        for _ in 0..20_000 {
            let seeds = if random.below(4) > 0 { &valid } else { &others };
            let mut input = seeds[random.below(seeds.len())].1.clone();
            match random.below(4) {
                0 => mutate::binary(&mut input, &mut random),
                _ if text => {
                    let start = input.iter().position(|&byte| byte == b'{').unwrap_or(0);
                    mutate::json(&mut input, start, &mut random);
                }
                _ => mutate::binary(&mut input, &mut random),
            }
            tally.add(target(&input));
        }
        let Tally { inputs, accepted, worst } = tally;
        assert!(accepted > inputs / 100, "{name}: so wild that nothing is accepted: {accepted} of {inputs}");
        assert!(accepted < inputs * 3 / 4, "{name}: so tame that most are accepted: {accepted} of {inputs}");
        println!(
            "{name}: {inputs} inputs, {accepted} accepted; worst peak {worst:.1} x input, allowed {}",
            Budget::HEADER.multiple
        );
    }
}

/// Our header reader and the crate `safetensors` accept the same files, but for those that only we refuse on purpose.
#[test]
fn acceptance_agrees_with_the_crate_safetensors() {
    let mut seeds = corpus("safetensors");
    seeds.retain(|(file, _)| file.starts_with("valid-"));
    let mut random = Random(0xc0de);
    let (mut both, mut only_crate) = (0, 0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut disagreement = None;
    for _ in 0..20_000 {
        let (_, seed) = &seeds[random.below(seeds.len())];
        let [mode, data, json @ ..] = seed.as_slice() else { continue };
        if mode % 2 == 0 {
            continue;
        }
        let mut json = json.to_vec();
        mutate::json(&mut json, 0, &mut random);
        let file = [&(json.len() as u64).to_le_bytes(), json.as_slice(), &vec![0; usize::from(*data)]].concat();
        let ours = Safetensors::parse(&file);
        // It adds offsets without a check, which panics in a build with checks.
        let read = || safetensors::SafeTensors::deserialize(&file).ok().map(|theirs| theirs.len());
        let theirs = std::panic::catch_unwind(read).unwrap_or(None);
        let repeated = |tensors| String::from_utf8_lossy(&json).matches("\"data_offsets\"").count() > tensors;
        match (&ours, theirs) {
            (Ok(_), Some(_)) => both += 1,
            (Err(_), Some(tensors)) if repeated(tensors) => only_crate += 1,
            (Err(error), Some(_)) => match error.to_string() {
                message if message.contains("twice") || message.contains("64 dimensions") => only_crate += 1,
                message => disagreement = Some((message, file)),
            },
            (Ok(_), None) => disagreement = Some(("accepted by us alone".to_owned(), file)),
            (Err(_), None) => {}
        }
    }
    std::panic::set_hook(usual);
    if let Some((what, file)) = disagreement {
        panic!("{what}: {}", String::from_utf8_lossy(&file[8..]));
    }
    assert!(both > 500, "only {both} files are accepted");
    println!("{both} accepted by both, {only_crate} refused by us alone for repeated names or more than 64 dimensions");
}

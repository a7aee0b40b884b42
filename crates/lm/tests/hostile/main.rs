//! Whatever a vocabulary, a template or hyper-parameters say, using them neither panics nor takes unbounded memory.
//!
//! Inputs are the corpora of the fuzzer, in `fuzz/corpus/` of the repository, and random changes of them. Memory is counted for
//! the whole process: one test, one thread.

#[allow(dead_code, reason = "the tests of formats use all of it")]
#[path = "../../../formats/tests/hostile/allocation.rs"]
mod allocation;
#[path = "../../../formats/tests/hostile/corpus.rs"]
mod corpus;
#[allow(dead_code, reason = "the tests of formats use all of it")]
#[path = "../../../formats/tests/hostile/mutate.rs"]
mod mutate;
mod records;
mod targets;

use corpus::corpus;
use mutate::Random;
use targets::TARGETS;

#[test]
fn seeds_and_changes_of_them_are_judged_with_bounded_memory() {
    // The library catches what panics in the crate `tokenizers`; a backtrace of it would be counted, 64 MB of symbols.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|location| location.file().contains("tokenizers-")) {
            print(panic);
        }
    }));
    for (name, target) in TARGETS {
        let files = corpus(name);
        let (mut valid, mut broken, mut misjudged) = (Vec::new(), 0, Vec::new());
        for (file, input) in &files {
            let accepted = target(input);
            match file.split('-').next() {
                Some("valid") => valid.push(input),
                Some("broken") => broken += 1,
                _ => continue,
            }
            if accepted != file.starts_with("valid-") {
                misjudged.push(file);
            }
        }
        assert!(misjudged.is_empty(), "{name}: judged otherwise than their names say: {misjudged:?}");
        assert!(valid.len() >= 3 && broken >= 8, "{name}: only {} valid and {broken} broken seeds", valid.len());

        let (mut random, mut accepted) = (Random(0x5eed), 0);
        const INPUTS: usize = 500;
        for _ in 0..INPUTS {
            let mut input = valid[random.below(valid.len())].clone();
            if name == "tokenizer_json" {
                mutate::json(&mut input, 0, &mut random);
            } else {
                mutate::binary(&mut input, &mut random);
            }
            accepted += usize::from(target(&input));
        }
        assert!(accepted > INPUTS / 100, "{name}: so wild that nothing is accepted: {accepted}");
        println!("{name}: {} seeds, {INPUTS} changed inputs, {accepted} accepted", files.len());
    }
}

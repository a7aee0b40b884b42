#![no_main]

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

// The crate `tokenizers` panics on some files, which the library turns into errors: only what comes out of the target counts.
libfuzzer_sys::fuzz_target!(
    init: set_hook(Box::new(|_| {})),
    |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| anymlx_fuzz::model_targets::tokenizer_json(input))) {
            let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            eprintln!("panic: {}", message.unwrap_or("of another type"));
            std::process::abort();
        }
    }
);

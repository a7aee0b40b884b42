#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    anymlx_fuzz::model_targets::model_config(input);
});

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    anymlx_fuzz::targets::mlx_config(input);
});

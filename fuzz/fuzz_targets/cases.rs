#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kiln_model::fuzz::cases(bytes));

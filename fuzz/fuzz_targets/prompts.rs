#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rwkv_fuzz::bounded(bytes, rwkv_fuzz::prompts));

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(wgpu_attention_fuzzing::model(bytes)));

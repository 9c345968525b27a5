#![no_main]
#![allow(dead_code, reason = "each target runs one of the bodies")]

#[path = "../../tests/tests/parsers/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::document(bytes));

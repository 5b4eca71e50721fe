//! See `longwire_fuzz::http_body`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::http_body(data));

/// Without a fuzzer: replays the files that the command line names.
#[cfg(not(fuzzing))]
fn main() {
    longwire_fuzz::replay(longwire_fuzz::http_body);
}

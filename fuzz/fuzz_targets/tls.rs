//! See `longwire_fuzz::tls`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::tls(data));

/// Without a fuzzer: replays the files that the command line names.
#[cfg(not(fuzzing))]
fn main() {
    longwire_fuzz::replay(longwire_fuzz::tls);
}

//! Policies and patterns of any shape are read or refused, never a panic; every volume is either allowed or denied.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| certlet::fuzzing::policy(text));

//! CertificateRequests of any shape are read or refused, never a panic; what is kept of them is found again, and gone afterwards.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| certlet::fuzzing::certificate_request(json));

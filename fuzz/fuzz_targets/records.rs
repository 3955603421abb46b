//! A record of any bytes is read or refused, never a panic; what was read is written and read again as the same.
#![no_main]

use certlet::store::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| match Record::parse(json) {
    Ok(record) => {
        let encoded = record.encode().expect("a record that was read can be written");
        let again = Record::parse(&encoded).expect("a record that was written can be read");
        assert!(record == again, "{record:?} became {again:?}");
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});

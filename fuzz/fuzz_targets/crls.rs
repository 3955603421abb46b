//! Whatever a web server sends in place of a CRL is read or refused, never a panic; what is read is read again in the same way.
#![no_main]

use certlet::x509::Crl;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| match Crl::read_all(input) {
    Ok(lists) => {
        assert!(!lists.is_empty());
        for list in lists {
            assert_eq!(Crl::read_all(list.der()), Ok(vec![list]));
        }
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});

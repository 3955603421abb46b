//! RSA keys of sizes that aws-lc-rs does not make, from the C library under it. It makes sizes that are multiples of 128 bits.

use aws_lc_rs::error::Unspecified;
use aws_lc_sys::{
    BIGNUM, BN_free, BN_new, BN_set_u64, OPENSSL_free, RSA, RSA_free, RSA_generate_key_ex, RSA_new,
    RSA_private_key_to_bytes,
};
use std::ptr::{self, NonNull};
use zeroize::{Zeroize, Zeroizing};

/// The usual public exponent.
const EXPONENT: u64 = 65_537;

/// A new key as `RSAPrivateKey` (RFC 8017 appendix A.1.2), DER.
pub(super) fn generate(bits: u16) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
    let (key, exponent) = (Key::new()?, Number::new(EXPONENT)?);
    let (mut bytes, mut length) = (ptr::null_mut(), 0);
    #[expect(unsafe_code, reason = "calls to C, each with what its documentation in rsa.h asks for")]
    // SAFETY: both objects are live, and no callback is given. On success the second call sets `bytes` to a new buffer of `length`
    // bytes, which is read, zeroized and freed here, once.
    unsafe {
        let made = RSA_generate_key_ex(key.0.as_ptr(), i32::from(bits), exponent.0.as_ptr(), ptr::null_mut())
            == 1
            && RSA_private_key_to_bytes(&raw mut bytes, &raw mut length, key.0.as_ptr()) == 1;
        if !made || bytes.is_null() {
            return Err(Unspecified);
        }
        let buffer = std::slice::from_raw_parts_mut(bytes, length);
        let der = Zeroizing::new(buffer.to_vec());
        buffer.zeroize();
        OPENSSL_free(bytes.cast());
        Ok(der)
    }
}

/// An RSA key, freed when dropped. Freeing it zeroizes it.
struct Key(NonNull<RSA>);

impl Key {
    fn new() -> Result<Self, Unspecified> {
        #[expect(unsafe_code, reason = "a call to C")]
        // SAFETY: it takes nothing, and returns a new object or null.
        let key = unsafe { RSA_new() };
        NonNull::new(key).map(Self).ok_or(Unspecified)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a call to C")]
        // SAFETY: the object came from `RSA_new`, and is not used after this.
        unsafe {
            RSA_free(self.0.as_ptr());
        }
    }
}

/// A big number, freed when dropped.
struct Number(NonNull<BIGNUM>);

impl Number {
    fn new(value: u64) -> Result<Self, Unspecified> {
        #[expect(unsafe_code, reason = "calls to C")]
        // SAFETY: the first takes nothing, and returns a new object or null. The second gets a live object.
        unsafe {
            let number = NonNull::new(BN_new()).map(Self).ok_or(Unspecified)?;
            if BN_set_u64(number.0.as_ptr(), value) == 1 { Ok(number) } else { Err(Unspecified) }
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a call to C")]
        // SAFETY: the object came from `BN_new`, and is not used after this.
        unsafe {
            BN_free(self.0.as_ptr());
        }
    }
}

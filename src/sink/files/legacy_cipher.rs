//! The two block ciphers of old PKCS#12 keystores, from AWS-LC. They protect nothing today. One of the three files with `unsafe` in
//! them: aws-lc-rs offers no ciphers of this age, so its C library is called directly.

use aws_lc_rs::error::Unspecified;
use aws_lc_sys::{
    EVP_CIPHER_CTX, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_EncryptFinal_ex, EVP_EncryptInit_ex,
    EVP_EncryptUpdate, EVP_des_ede3_cbc, EVP_rc2_40_cbc,
};
use std::ptr::{self, NonNull};

/// Bytes of a block, and of the initialization vector, of both ciphers.
pub(super) const BLOCK: usize = 8;

/// A cipher in CBC mode, with the padding of PKCS#7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LegacyCipher {
    /// RC2 with 40 bits.
    Rc2,
    /// Triple DES with three keys.
    TripleDes,
}

impl LegacyCipher {
    /// Bytes of a key.
    pub(super) fn key_len(self) -> usize {
        match self {
            Self::Rc2 => 5,
            Self::TripleDes => 24,
        }
    }

    /// Encrypts in place, and adds the padding. A buffer with [`BLOCK`] bytes of spare capacity does not move.
    pub(super) fn encrypt(
        self,
        key: &[u8],
        iv: [u8; BLOCK],
        in_out: &mut Vec<u8>,
    ) -> Result<(), Unspecified> {
        if key.len() != self.key_len() {
            return Err(Unspecified);
        }
        let plain = in_out.len();
        let length = i32::try_from(plain).map_err(|_| Unspecified)?;
        in_out.resize(plain + BLOCK, 0);
        let context = Context::new()?;
        let (mut written, mut padding) = (0, 0);
        #[expect(
            unsafe_code,
            reason = "calls to C, each with what its documentation in evp.h and cipher.h asks for"
        )]
        // SAFETY: `context` is a live context. `key` has the length of the cipher's keys (checked above), `iv` that of its
        // blocks, and both are read before the first call returns. Input and output are the same buffer, which the C library
        // allows. It has room for a block more than the input; the library writes at most that, and says how much.
        let done = unsafe {
            let cipher = match self {
                Self::Rc2 => EVP_rc2_40_cbc(),
                Self::TripleDes => EVP_des_ede3_cbc(),
            };
            let buffer = in_out.as_mut_ptr();
            EVP_EncryptInit_ex(context.0.as_ptr(), cipher, ptr::null_mut(), key.as_ptr(), iv.as_ptr()) == 1
                && EVP_EncryptUpdate(context.0.as_ptr(), buffer, &raw mut written, buffer, length) == 1
                && usize::try_from(written).is_ok_and(|written| written <= plain)
                && EVP_EncryptFinal_ex(
                    context.0.as_ptr(),
                    buffer.add(usize::try_from(written).unwrap_or_default()),
                    &raw mut padding,
                ) == 1
        };
        let total = usize::try_from(written).ok().zip(usize::try_from(padding).ok());
        let total = total.map(|(written, padding)| written + padding).filter(|total| *total <= plain + BLOCK);
        match total {
            Some(total) if done => {
                in_out.truncate(total);
                Ok(())
            }
            _ => Err(Unspecified),
        }
    }
}

/// A cipher context, freed when dropped. Freeing it zeroizes the key in it.
struct Context(NonNull<EVP_CIPHER_CTX>);

impl Context {
    fn new() -> Result<Self, Unspecified> {
        #[expect(unsafe_code, reason = "a call to C")]
        // SAFETY: it takes nothing, and returns a new context or null.
        let context = unsafe { EVP_CIPHER_CTX_new() };
        NonNull::new(context).map(Self).ok_or(Unspecified)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a call to C")]
        // SAFETY: the context came from `EVP_CIPHER_CTX_new`, and is not used after this.
        unsafe {
            EVP_CIPHER_CTX_free(self.0.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::testing::run;

    #[test]
    fn openssl_decrypts_every_length() {
        for (cipher, name) in [(LegacyCipher::Rc2, "-rc2-40-cbc"), (LegacyCipher::TripleDes, "-des-ede3-cbc")]
        {
            let key: Vec<u8> = (1..).take(cipher.key_len()).collect();
            for length in [0, 1, 7, 8, 9, 64, 1000] {
                let plain: Vec<u8> = (0..length).map(|byte: u32| byte.to_le_bytes()[0]).collect();
                let mut text = Vec::with_capacity(plain.len() + BLOCK);
                text.extend_from_slice(&plain);
                let before = text.as_ptr();
                cipher.encrypt(&key, [9; BLOCK], &mut text).unwrap();
                assert_eq!((text.as_ptr(), text.len()), (before, plain.len() / BLOCK * BLOCK + BLOCK));
                let (key, iv) = (crate::model::hex(&key), crate::model::hex(&[9; BLOCK]));
                let arguments = [
                    "enc",
                    "-d",
                    name,
                    "-K",
                    &key,
                    "-iv",
                    &iv,
                    "-provider",
                    "legacy",
                    "-provider",
                    "default",
                ];
                let (success, errors, output) = run("openssl", &arguments, &text);
                assert!(success, "{errors}");
                assert_eq!(output, plain);
            }
        }
        assert!(LegacyCipher::Rc2.encrypt(&[0; 24], [0; BLOCK], &mut Vec::new()).is_err());
    }
}

//! Makes the kubelet's `:authority` valid.
//!
//! On the registration socket, the kubelet sends the socket's percent-encoded path as `:authority`. That is not an authority
//! (RFC 3986 section 3.2), and the `h2` crate ends such a stream with `PROTOCOL_ERROR`. On a Unix socket the field has no
//! meaning. So its value is overwritten with a valid one of the same encoded length before `h2` reads it. All other bytes
//! stay the same, and nothing is decoded: HPACK (RFC 7541) fields can be skipped by their lengths.

use std::convert::Infallible;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The server's end of a connection that accepts any `:authority`. A task copies between it and the kubelet's connection,
/// until one of the two is closed.
pub(super) fn accept_any_authority(kubelet: UnixStream) -> io::Result<UnixStream> {
    let (server, relay) = UnixStream::pair()?;
    let (requests, mut to_kubelet) = kubelet.into_split();
    let (mut answers, to_server) = relay.into_split();
    tokio::spawn(async move {
        tokio::select! {
            _closed = tokio::io::copy(&mut answers, &mut to_kubelet) => {}
            Err(_closed) = copy_requests(requests, to_server) => {}
        }
    });
    Ok(server)
}

/// Copies rewritten bytes until an error. After the last request it does not return, because the server still has to
/// answer.
async fn copy_requests(mut requests: OwnedReadHalf, mut to_server: OwnedWriteHalf) -> io::Result<Infallible> {
    let mut frames = Frames::new();
    let mut chunk = [0; 4096];
    let mut rewritten = Vec::new();
    loop {
        let count = requests.read(&mut chunk).await?;
        if count == 0 {
            to_server.shutdown().await?;
            return std::future::pending().await;
        }
        frames.rewrite(&chunk[..count], &mut rewritten);
        to_server.write_all(&rewritten).await?;
        rewritten.clear();
    }
}

/// The client's connection preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of the head of a frame (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Splits the stream into frames as their bytes arrive.
struct Frames {
    /// The number of bytes to copy unchanged.
    pass: usize,
    /// The received part of a frame's head, and of a HEADERS frame's payload after it.
    held: Vec<u8>,
}

impl Frames {
    fn new() -> Self {
        Self { pass: PREFACE.len(), held: Vec::new() }
    }

    /// Takes the next bytes, and appends those that are complete to `out`.
    fn rewrite(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.pass > 0 {
                let (now, later) = bytes.split_at(self.pass.min(bytes.len()));
                out.extend_from_slice(now);
                self.pass -= now.len();
                bytes = later;
                continue;
            }
            let wanted = self.wanted();
            let (now, later) = bytes.split_at((wanted - self.held.len()).min(bytes.len()));
            self.held.extend_from_slice(now);
            bytes = later;
            if self.held.len() == HEAD_BYTES && self.held[3] != HEADERS {
                self.pass = self.length();
                out.append(&mut self.held);
            } else if self.held.len() >= HEAD_BYTES && self.held.len() == self.wanted() {
                let (head, payload) = self.held.split_at_mut(HEAD_BYTES);
                // A malformed block passes unchanged: `h2` rejects it.
                let _walked = overwrite_authority(head[4], payload);
                out.append(&mut self.held);
            }
        }
    }

    /// The number of bytes to hold: a head, or a whole HEADERS frame, whose length has 24 bits.
    fn wanted(&self) -> usize {
        if self.held.len() < HEAD_BYTES { HEAD_BYTES } else { HEAD_BYTES + self.length() }
    }

    fn length(&self) -> usize {
        self.held[..3].iter().fold(0, |length, byte| (length << 8) | usize::from(*byte))
    }
}

/// Finds `:authority` in a HEADERS payload (RFC 7541 section 6) and overwrites its value.
fn overwrite_authority(flags: u8, payload: &mut [u8]) -> Option<()> {
    /// Its index in the static table (RFC 7541 appendix A).
    const AUTHORITY: usize = 1;
    let (mut at, mut end) = (0, payload.len());
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*payload.first()?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    while at < end {
        let first = *payload.get(at)?;
        let prefix = match first {
            // An indexed field. It has no literal value.
            0x80.. => 7,
            0x40.. => 6,
            // A new table size. It has no literal value either.
            0x20.. => 5,
            _ => 4,
        };
        let index = integer(payload, &mut at, prefix)?;
        if matches!(prefix, 5 | 7) {
            continue;
        }
        if index == 0 {
            let name = integer(payload, &mut at, 7)?;
            at = at.checked_add(name)?;
        }
        let is_huffman = payload.get(at)? & 0x80 != 0;
        let length = integer(payload, &mut at, 7)?;
        let value = payload.get_mut(at..at.checked_add(length)?)?;
        if index == AUTHORITY {
            fill(value, is_huffman);
        }
        at += length;
    }
    Some(())
}

/// An integer with an n-bit prefix (RFC 7541 section 5.1).
fn integer(bytes: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let max = (1 << prefix) - 1;
    let mut value = usize::from(*bytes.get(*at)?) & max;
    *at += 1;
    if value < max {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Fills the value with letters `a`. In Huffman code (RFC 7541 appendix B) an `a` is 00011, and ones pad the last byte.
fn fill(value: &mut [u8], is_huffman: bool) {
    if !is_huffman {
        return value.fill(b'a');
    }
    let whole = value.len() * 8 / 5 * 5;
    for (n, byte) in value.iter_mut().enumerate() {
        *byte = (n * 8..n * 8 + 8).fold(0, |byte, bit| (byte << 1) | u8::from(bit >= whole || bit % 5 >= 3));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn passed(bytes: &[u8], chunk: usize) -> Vec<u8> {
        let (mut frames, mut out) = (Frames::new(), Vec::new());
        bytes.chunks(chunk).for_each(|chunk| frames.rewrite(chunk, &mut out));
        out
    }

    #[test]
    fn only_the_value_of_the_authority_is_overwritten_in_chunks_of_any_size() {
        let block = |authority: &[u8]| [b"\x83\x86\x44\x02/x\x41\x05", authority, b"\x00\x01k\x01v"].concat();
        let stream = |authority: &[u8]| {
            [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                frame(4, 0, b""),
                frame(HEADERS, 4, &block(authority)),
                frame(0, 1, b"%2Fab"),
                frame(HEADERS, 4 | PRIORITY, &[&b"\x00\x00\x00\x00\x10"[..], &block(authority)].concat()),
            ]
            .concat()
        };
        for chunk in [1, 2, 7, 30, 4096] {
            assert_eq!(passed(&stream(b"%2Fab"), chunk), stream(b"aaaaa"), "in chunks of {chunk}");
        }
    }

    #[tokio::test]
    async fn requests_are_rewritten_and_answers_still_come_after_their_end() {
        let block =
            |authority: &[u8]| [PREFACE, &frame(HEADERS, 4, &[b"\x41\x05", authority].concat())].concat();
        let (mut kubelet, accepted) = UnixStream::pair().unwrap();
        let mut server = accept_any_authority(accepted).unwrap();
        kubelet.write_all(&block(b"%2Fab")).await.unwrap();
        kubelet.shutdown().await.unwrap();
        let mut requests = Vec::new();
        server.read_to_end(&mut requests).await.unwrap();
        assert_eq!(requests, block(b"aaaaa"));
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = String::new();
        kubelet.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn a_huffman_coded_value_is_filled_with_whole_letters() {
        // Eight letters of five bits are five bytes: 00011000 11000110 00110001 10001100 01100011.
        let mut value = [0xff; 6];
        fill(&mut value, true);
        assert_eq!(value, [0x18, 0xc6, 0x31, 0x8c, 0x63, 0x1f]);
    }

    #[test]
    fn a_malformed_block_passes_unchanged() {
        for odd in [&b"\x41\x7f\xff\xff\xff\xff\xff"[..], b"\x41", b"\x41\x09abc", b"\x00\x7f\x00", b"\x40"] {
            let bytes = [&[0; PREFACE.len()][..], &frame(HEADERS, 4, odd)].concat();
            assert_eq!(passed(&bytes, 4096), bytes);
        }
    }
}

//! Accepts any `:authority` of an HTTP/2 client on a Unix socket.
//!
//! Some clients of a Unix socket send its path as `:authority`: the kubelet, and gRPC for Java and for C. That is not an
//! authority (RFC 3986 section 3.2), and the `h2` crate ends such a stream with `PROTOCOL_ERROR`. On a Unix socket the field has
//! no meaning. So its value is overwritten where it is read, before `h2` sees it, with a valid one of the same encoded length.
//!
//! Nothing is stored but a frame's head, and nothing is decoded: an HPACK field (RFC 7541) is skipped by its lengths. All other
//! bytes stay the same. The new value has at most as many characters as the old one, so the server's dynamic table keeps at
//! least the entries that the client's has, under the same indices.
//!
//! `h2` judges the result like any other input. What is malformed, or has its name from the dynamic table, passes unchanged.

use std::io::{self, IoSlice};
use std::mem::take;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The server's end of a connection, on which any `:authority` is accepted.
pub(crate) struct AnyAuthority<S> {
    stream: S,
    frames: Frames,
}

impl<S> AnyAuthority<S> {
    /// A connection whose first byte has not been read.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, frames: Frames::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.frames.rewrite(&mut buffer.filled_mut()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The client's connection preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of the head of a frame (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes of the fields that the flag `PRIORITY` announces.
const PRIORITY_BYTES: usize = 5;

/// Finds the header blocks in the bytes of a connection (RFC 9113 section 6.2), as they arrive.
struct Frames {
    head: [u8; HEAD_BYTES],
    /// The received bytes of `head`.
    received: usize,
    /// The next byte is the length of a padding.
    is_padding_due: bool,
    /// Bytes to leave unchanged. The counts are of what is still to come: these bytes, then `fragment`, then `padding`.
    unchanged: usize,
    /// Bytes of a header block.
    fragment: usize,
    /// Bytes after it.
    padding: usize,
    block: HeaderBlock,
}

impl Frames {
    fn new() -> Self {
        Self {
            head: [0; HEAD_BYTES],
            received: 0,
            is_padding_due: false,
            unchanged: PREFACE.len(),
            fragment: 0,
            padding: 0,
            block: HeaderBlock::Field,
        }
    }

    /// Overwrites the authorities in the next bytes of the connection.
    fn rewrite(&mut self, mut bytes: &mut [u8]) {
        while let Some(&first) = bytes.first() {
            let count = if self.unchanged > 0 {
                consume(&mut self.unchanged, bytes)
            } else if self.is_padding_due {
                self.is_padding_due = false;
                self.split(self.length() - 1, usize::from(first));
                1
            } else if self.fragment > 0 {
                let count = consume(&mut self.fragment, bytes);
                bytes[..count].iter_mut().for_each(|byte| self.block.rewrite(byte));
                count
            } else if self.padding > 0 {
                consume(&mut self.padding, bytes)
            } else {
                self.head_byte(first);
                1
            };
            bytes = &mut take(&mut bytes)[count..];
        }
    }

    fn head_byte(&mut self, byte: u8) {
        self.head[self.received] = byte;
        self.received += 1;
        if self.received < HEAD_BYTES {
            return;
        }
        self.received = 0;
        let length = self.length();
        match self.head[3] {
            HEADERS => {
                self.block = HeaderBlock::Field;
                self.is_padding_due = self.head[4] & PADDED != 0 && length > 0;
                if !self.is_padding_due {
                    self.split(length, 0);
                }
            }
            CONTINUATION => self.fragment = length,
            _ => self.unchanged = length,
        }
    }

    /// Splits the bytes after the padding's length.
    fn split(&mut self, length: usize, padding: usize) {
        let priority = if self.head[4] & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
        // `h2` refuses a frame that is too short.
        (self.unchanged, self.fragment, self.padding) = match length.checked_sub(priority + padding) {
            Some(fragment) => (priority, fragment, padding),
            None => (length, 0, 0),
        };
    }

    /// The length of the frame after its head: 24 bits.
    fn length(&self) -> usize {
        self.head[..3].iter().fold(0, |length, byte| (length << 8) | usize::from(*byte))
    }
}

/// Takes at most `left` of the bytes: how many.
fn consume(left: &mut usize, bytes: &[u8]) -> usize {
    let count = bytes.len().min(*left);
    *left -= count;
    count
}

/// What the next byte of a header block is (RFC 7541 section 6). A block goes on over frames.
#[derive(Clone, Copy)]
enum HeaderBlock {
    /// The first byte of a field.
    Field,
    /// A byte of an integer after its first one.
    Integer { of: Integer, value: usize, shift: u32 },
    /// The first byte of the length of a field's name.
    NameLength,
    /// A byte of the name. `authority` is the part of the authority's name that has to follow, if the name may still be it.
    Name { left: usize, authority: Option<&'static [u8]> },
    /// The first byte of the length of a field's value.
    ValueLength { is_authority: bool },
    /// A byte of the value, and what to overwrite it with.
    Value { left: usize, filler: Option<u8> },
    /// A byte of a block that is malformed.
    Malformed,
}

/// What an integer means (RFC 7541 section 5.1).
#[derive(Clone, Copy)]
enum Integer {
    /// The index of a field, or the size of the dynamic table. No literal follows.
    Whole,
    /// The index of a name, before a value.
    NameIndex,
    NameLength {
        is_huffman: bool,
    },
    ValueLength {
        is_authority: bool,
        is_huffman: bool,
    },
}

/// The index of `:authority` in the static table (RFC 7541 appendix A).
const AUTHORITY_INDEX: usize = 1;
const AUTHORITY_NAME: &[u8] = b":authority";
/// The same in Huffman code (RFC 7541 appendix B).
const AUTHORITY_NAME_HUFFMAN: &[u8] = b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f";
/// What values are overwritten with. Its Huffman code has eight bits, so each byte is one character. Fewer characters would not
/// fit, because a client uses Huffman code only if that is not longer.
const FILLER: u8 = b'X';
const FILLER_HUFFMAN: u8 = 0xfc;
/// The bits of an integer after its first byte, as `h2` accepts them.
const MAX_INTEGER_BITS: u32 = 28;

impl HeaderBlock {
    /// Takes the next byte, and overwrites it if it is of an authority.
    fn rewrite(&mut self, byte: &mut u8) {
        let is_huffman = *byte & 0x80 != 0;
        *self = match *self {
            Self::Field => match *byte {
                0x80.. => Self::integer(Integer::Whole, *byte, 7),
                0x40.. => Self::integer(Integer::NameIndex, *byte, 6),
                0x20.. => Self::integer(Integer::Whole, *byte, 5),
                _ => Self::integer(Integer::NameIndex, *byte, 4),
            },
            Self::Malformed | Self::Integer { shift: MAX_INTEGER_BITS.., .. } => Self::Malformed,
            Self::Integer { of, value, shift } => {
                let value = value + (usize::from(*byte & 0x7f) << shift);
                if *byte & 0x80 == 0 {
                    Self::after(of, value)
                } else {
                    Self::Integer { of, value, shift: shift + 7 }
                }
            }
            Self::NameLength => Self::integer(Integer::NameLength { is_huffman }, *byte, 7),
            Self::Name { left, authority } => {
                Self::name(left - 1, authority.and_then(|name| name.strip_prefix(&[*byte])))
            }
            Self::ValueLength { is_authority } => {
                Self::integer(Integer::ValueLength { is_authority, is_huffman }, *byte, 7)
            }
            Self::Value { left, filler } => {
                *byte = filler.unwrap_or(*byte);
                Self::value(left - 1, filler)
            }
        };
    }

    /// After the first byte of an integer with an n-bit prefix.
    fn integer(of: Integer, first: u8, prefix: u32) -> Self {
        let max = (1 << prefix) - 1;
        let value = usize::from(first) & max;
        if value < max { Self::after(of, value) } else { Self::Integer { of, value, shift: 0 } }
    }

    /// After a whole integer.
    fn after(of: Integer, value: usize) -> Self {
        match of {
            Integer::Whole => Self::Field,
            Integer::NameIndex if value == 0 => Self::NameLength,
            Integer::NameIndex => Self::ValueLength { is_authority: value == AUTHORITY_INDEX },
            Integer::NameLength { is_huffman } => {
                let authority = if is_huffman { AUTHORITY_NAME_HUFFMAN } else { AUTHORITY_NAME };
                Self::name(value, Some(authority).filter(|name| name.len() == value))
            }
            Integer::ValueLength { is_authority, is_huffman } => {
                let filler = if is_huffman { FILLER_HUFFMAN } else { FILLER };
                Self::value(value, is_authority.then_some(filler))
            }
        }
    }

    fn name(left: usize, authority: Option<&'static [u8]>) -> Self {
        if left == 0 {
            Self::ValueLength { is_authority: authority.is_some() }
        } else {
            Self::Name { left, authority }
        }
    }

    fn value(left: usize, filler: Option<u8>) -> Self {
        if left == 0 { Self::Field } else { Self::Value { left, filler } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    const END_HEADERS: u8 = 4;
    const DATA: u8 = 0;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// A connection's bytes: these frames after the preface.
    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [PREFACE.to_vec(), frames.concat()].concat()
    }

    /// The bytes after they were read in chunks.
    fn passed(bytes: &[u8], chunk: usize) -> Vec<u8> {
        let (mut frames, mut bytes) = (Frames::new(), bytes.to_vec());
        bytes.chunks_mut(chunk).for_each(|chunk| frames.rewrite(chunk));
        bytes
    }

    /// Checks what becomes of a connection with a value of five bytes in it.
    fn assert_overwritten(filler: &[u8], stream: impl Fn(&[u8]) -> Vec<u8>) {
        for chunk in [1, 2, 7, 30, 4096] {
            assert_eq!(passed(&stream(b"%2Fab"), chunk), stream(filler), "in chunks of {chunk}");
        }
    }

    /// A block with `:authority` in it, which is encoded like this before its value.
    fn block(authority: &[u8], value: &[u8]) -> Vec<u8> {
        [b"\x83\x86\x44\x02/x", authority, value, b"\x00\x01k\x05%2Fab"].concat()
    }

    #[test]
    fn only_the_value_of_the_authority_is_overwritten_in_chunks_of_any_size() {
        assert_overwritten(b"XXXXX", |value| {
            let block = block(b"\x41\x05", value);
            connection(&[
                frame(4, 0, b""),
                frame(HEADERS, END_HEADERS, &block),
                frame(DATA, 1, b"%2Fab"),
                frame(HEADERS, END_HEADERS | PRIORITY, &[b"\x00\x00\x00\x00\x10", &block[..]].concat()),
            ])
        });
    }

    #[test]
    fn each_form_of_a_literal_is_overwritten() {
        // Its name by index or as text, in each kind of literal (RFC 7541 section 6.2).
        for first in [
            &b"\x41"[..],
            b"\x01",
            b"\x11",
            b"\x40\x0a:authority",
            b"\x00\x0a:authority",
            b"\x10\x0a:authority",
        ] {
            let with = |length: u8, value: &[u8]| {
                connection(&[frame(HEADERS, END_HEADERS, &block(&[first, &[length]].concat(), value))])
            };
            assert_overwritten(b"XXXXX", |value| with(5, value));
            assert_overwritten(&[FILLER_HUFFMAN; 5], |value| with(0x85, value));
        }
        let huffman = [b"\x40\x88", AUTHORITY_NAME_HUFFMAN, b"\x05"].concat();
        assert_overwritten(b"XXXXX", |value| {
            connection(&[frame(HEADERS, END_HEADERS, &block(&huffman, value))])
        });
        for other in [&b"\x40\x0a:authoritx\x05"[..], b"\x40\x09authority\x05", b"\x44\x05", b"\x40\x00\x05"]
        {
            let bytes = connection(&[frame(HEADERS, END_HEADERS, &block(other, b"%2Fab"))]);
            assert_eq!(passed(&bytes, 4096), bytes, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn the_padding_of_a_frame_is_no_field() {
        assert_overwritten(b"XXXXX", |value| {
            let block = block(b"\x41\x05", value);
            let padding = b"\x41\x05%2Fab";
            let padded = [b"\x07", &block[..], padding].concat();
            let with_priority = [b"\x07\x00\x00\x00\x00\x10", &block[..], padding].concat();
            connection(&[
                frame(HEADERS, END_HEADERS | PADDED, &padded),
                frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &with_priority),
                frame(HEADERS, END_HEADERS, &block),
            ])
        });
    }

    #[test]
    fn a_block_may_be_split_over_frames_anywhere() {
        let end = block(b"\x41\x05", b"%2Fab").len();
        for at in 0..end {
            assert_overwritten(b"XXXXX", |value| {
                let block = block(b"\x41\x05", value);
                let (first, second) = block.split_at(at);
                connection(&[
                    frame(HEADERS, 0, first),
                    frame(CONTINUATION, END_HEADERS, second),
                    frame(DATA, 1, b"%2Fab"),
                ])
            });
        }
    }

    #[test]
    fn a_malformed_block_passes_unchanged_and_the_next_frame_is_found() {
        let huge = b"\x41\x7f\xff\xff\xff\xff\xff\xff";
        for odd in [&huge[..], b"\x41", b"\x41\x7f", b"\x00\x7f\x00", b"\x40"] {
            let with = |authority: &[u8]| {
                connection(&[
                    frame(HEADERS, END_HEADERS, odd),
                    frame(HEADERS, END_HEADERS, &block(b"\x41\x05", authority)),
                ])
            };
            assert_eq!(passed(&with(b"%2Fab"), 4096), with(b"XXXXX"), "{}", odd.escape_ascii());
        }
        // Frames that are shorter than their flags say.
        for flags in [PADDED, PRIORITY, PADDED | PRIORITY] {
            for payload in [&b""[..], b"\x09", b"\x09\x41\x05%2F"] {
                let bytes = connection(&[frame(HEADERS, flags, payload), frame(DATA, 1, b"\x41\x05%2Fab")]);
                let expected_same = passed(&bytes, 4096);
                assert_eq!(expected_same, bytes, "{flags:#x} {}", payload.escape_ascii());
            }
        }
    }

    #[test]
    fn no_input_makes_it_panic_or_changes_the_length_of_a_frame() {
        let mut noise = vec![0; 1 << 16];
        for _ in 0..64 {
            rand::fill(&mut noise).unwrap();
            assert_eq!(
                passed(&connection(std::slice::from_ref(&noise)), 4096).len(),
                PREFACE.len() + noise.len()
            );
            // Blocks of noise in valid frames: only payloads may change.
            let frames: Vec<_> = noise.chunks(97).map(|block| frame(HEADERS, block[0], block)).collect();
            let after = passed(&connection(&frames), 61);
            let heads = |bytes: &[u8]| -> Vec<u8> {
                bytes[PREFACE.len()..]
                    .chunks(HEAD_BYTES + 97)
                    .flat_map(|frame| frame[..HEAD_BYTES].to_vec())
                    .collect()
            };
            assert_eq!(heads(&after), heads(&connection(&frames)));
        }
    }

    #[test]
    fn a_connection_needs_no_more_memory_whatever_it_sends() {
        // No part of it is on the heap.
        assert!(size_of::<Frames>() <= 128, "{}", size_of::<Frames>());
        assert!(!std::mem::needs_drop::<Frames>());
    }

    #[tokio::test]
    async fn requests_are_rewritten_and_answers_are_not() {
        let (mut client, accepted) = UnixStream::pair().unwrap();
        let mut server = AnyAuthority::new(accepted);
        let request = |value| connection(&[frame(HEADERS, END_HEADERS, &block(b"\x41\x05", value))]);
        client.write_all(&request(b"%2Fab")).await.unwrap();
        client.shutdown().await.unwrap();
        let mut requests = Vec::new();
        server.read_to_end(&mut requests).await.unwrap();
        assert_eq!(requests, request(b"XXXXX"));
        server.write_all(&request(b"%2Fab")).await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, request(b"%2Fab"));
    }
}

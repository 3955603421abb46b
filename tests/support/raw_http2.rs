//! gRPC over HTTP/2 (RFC 9113) frame by frame, to send headers that no client library here sends.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::panic, reason = "support for tests")]

use crate::support::DEADLINE;
use prost::Message;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection.
pub struct RawClient {
    stream: UnixStream,
    /// The stream id of the next call. A client's ids are odd.
    id: u32,
}

impl RawClient {
    pub async fn connect(socket: &Path) -> Self {
        Self::over(UnixStream::connect(socket).await.unwrap()).await
    }

    pub async fn over(mut stream: UnixStream) -> Self {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self { stream, id: 1 }
    }

    /// A call with one message: the first message of its answer. `authority` is an encoded HPACK field (RFC 7541), or several. The
    /// other fields do not enter the dynamic table.
    pub async fn call<T: Message + Default>(
        &mut self,
        path: &str,
        authority: &[u8],
        message: &impl Message,
    ) -> Result<T, String> {
        let id = self.begin(path, authority).await;
        let message = message.encode_to_vec();
        let data = [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message.as_slice()];
        // A server that refuses the headers can have closed the connection already.
        let sent = self.stream.write_all(&frame(DATA, END_STREAM, id, &data.concat())).await;
        sent.map_err(|error| error.to_string())?;
        tokio::time::timeout(DEADLINE, self.answer(id)).await.unwrap()
    }

    /// Sends the headers of a call, and returns the id of its stream.
    async fn begin(&mut self, path: &str, authority: &[u8]) -> u32 {
        let id = self.id;
        self.id += 2;
        let headers = [
            b"\x83\x86\x04",
            &[u8::try_from(path.len()).unwrap()][..],
            path.as_bytes(),
            authority,
            b"\x0f\x10\x10application/grpc\x00\x02te\x08trailers",
        ];
        self.stream.write_all(&frame(HEADERS, END_HEADERS, id, &headers.concat())).await.unwrap();
        id
    }

    /// Sends a part of a message, and acknowledges the server's settings after the server has read it. Returns how much more the
    /// server then lets it send on the stream.
    pub async fn window_after_early_part(&mut self, path: &str, authority: &[u8]) -> i64 {
        const PART: usize = 4359;
        let id = self.begin(path, authority).await;
        let mut data = vec![0, 0, 0, 0xea, 0x60];
        data.resize(PART, 7);
        self.stream.write_all(&frame(DATA, 0, id, &data)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        let mut window = 65_535 - i64::try_from(PART).unwrap();
        loop {
            let mut head = [0; 9];
            let read = self.stream.read_exact(&mut head);
            let Ok(read) = tokio::time::timeout(Duration::from_millis(500), read).await else {
                return window;
            };
            read.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.stream.read_exact(&mut payload).await.unwrap();
            match head[3] {
                SETTINGS => {
                    let initial = payload.chunks(6).find(|setting| setting[..2] == [0, 4]);
                    let initial = initial.map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()));
                    window += initial.map_or(0, |initial| i64::from(initial) - 65_535);
                }
                WINDOW_UPDATE if head[5..] == id.to_be_bytes() => {
                    window += i64::from(u32::from_be_bytes(payload.try_into().unwrap()));
                }
                _ => {}
            }
        }
    }

    async fn answer<T: Message + Default>(&mut self, id: u32) -> Result<T, String> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.map_err(|error| error.to_string())?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.map_err(|error| error.to_string())?;
            let is_ours = head[5..] == id.to_be_bytes();
            match head[3] {
                // gRPC puts five bytes in front of a message.
                DATA if is_ours => return T::decode(&payload[5..]).map_err(|error| error.to_string()),
                RST_STREAM if is_ours => return Err(format!("the stream was reset: {payload:?}")),
                HEADERS if is_ours && head[4] & END_STREAM != 0 => return Err("no message came".to_owned()),
                GOAWAY => return Err(format!("the connection was given up: {payload:?}")),
                _ => {}
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

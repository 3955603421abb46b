//! gRPC over HTTP/2 (RFC 9113) frame by frame, to send headers that no client library here sends.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::panic, reason = "support for tests")]

use crate::support::DEADLINE;
use prost::Message;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
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
        let id = self.id;
        self.id += 2;
        let length = |text: &[u8]| u8::try_from(text.len()).unwrap();
        let headers = [
            b"\x83\x86\x04",
            &[length(path.as_bytes())][..],
            path.as_bytes(),
            authority,
            b"\x0f\x10\x10application/grpc\x00\x02te\x08trailers",
        ];
        let message = message.encode_to_vec();
        let data = [&[0, 0, 0, 0, length(&message)], message.as_slice()];
        self.stream.write_all(&frame(HEADERS, END_HEADERS, id, &headers.concat())).await.unwrap();
        self.stream.write_all(&frame(DATA, END_STREAM, id, &data.concat())).await.unwrap();
        tokio::time::timeout(DEADLINE, self.answer(id)).await.unwrap()
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

//! A raw connection to the gateway, and answers read off it by hand. Nothing here waits longer than [`BOUND`].

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::prelude::*;

/// The longest anything may take here, on a busy machine too.
pub const BOUND: Duration = Duration::from_secs(20);

pub struct Socket {
    stream: TcpStream,
    /// Read and not yet used.
    buffer: Vec<u8>,
}

/// Status, head in lower case, and body.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl RawAnswer {
    /// Asserts a failure envelope with this status and code.
    #[track_caller]
    pub fn fails(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, &self.body["code"]),
            (status, &Value::from(code)),
            "{self:#?}"
        );
        let id = self.body["requestId"].as_str().unwrap();
        shows(&self.head, &format!("x-request-id: {id}\r\n"));
    }
}

/// `authorization: Bearer …` of alice, with its line's end.
pub fn alice() -> String {
    let token = sign(&serde_json::json!({"sub": "alice", "exp": 4_000_000_000_u64}));
    format!("authorization: Bearer {token}\r\n")
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(BOUND, work).await;
    done.expect("within its time bound")
}

impl Socket {
    pub async fn to(app: &TestApp) -> Self {
        let address = app.base.strip_prefix("http://").unwrap();
        let stream = in_time(TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let buffer = Vec::new();
        Self { stream, buffer }
    }

    /// A connection on which this was sent.
    pub async fn sending(app: &TestApp, text: impl AsRef<[u8]>) -> Self {
        let mut socket = Self::to(app).await;
        socket.send(text).await;
        socket
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        in_time(self.stream.write_all(text.as_ref())).await.unwrap();
    }

    /// Sends, or finds that nobody listens any more.
    pub async fn try_send(&mut self, text: impl AsRef<[u8]>) -> bool {
        in_time(self.stream.write_all(text.as_ref())).await.is_ok()
    }

    /// The next answer; `None` where the connection ends instead. Informational ones (1xx) are answers too.
    pub async fn answer(&mut self) -> Option<RawAnswer> {
        let head = loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
            }
            if !self.more().await {
                assert!(
                    self.buffer.is_empty(),
                    "{:?}",
                    String::from_utf8_lossy(&self.buffer)
                );
                return None;
            }
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let head = head.to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            assert!(self.more().await, "cut in the middle of its body: {head}");
        }
        let body: Vec<u8> = self.buffer.drain(..length).collect();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Some(RawAnswer { status, head, body })
    }

    /// The status of an answer whose rest is left where it is.
    pub async fn status(&mut self) -> u16 {
        let head = b"HTTP/1.1 000";
        while self.buffer.len() < head.len() {
            assert!(self.more().await, "no answer");
        }
        let text = std::str::from_utf8(&self.buffer[..head.len()]).unwrap();
        text.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Asserts that the next thing is an answer with this status.
    pub async fn answers(&mut self, status: u16) -> RawAnswer {
        let answer = self.answer().await.expect("an answer");
        assert_eq!(answer.status, status, "{answer:#?}");
        answer
    }

    /// Asserts that the connection ends without another byte.
    pub async fn ends(&mut self) {
        let answer = self.answer().await;
        assert!(answer.is_none(), "{answer:#?}");
    }

    async fn more(&mut self) -> bool {
        // A reset is an end as well.
        in_time(self.stream.read_buf(&mut self.buffer))
            .await
            .unwrap_or(0)
            > 0
    }
}

/// Asserts that a good request on a connection of its own is served.
pub async fn good_requests_are_served(app: &TestApp) {
    app.user("alice").send_to_person("bob", "hi").await.ok();
}

//! Many connections that have had one answer and then say nothing.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const REQUEST: &[u8] = b"GET /api/v1/im/health HTTP/1.1\r\nHost: bench\r\n\r\n";

/// Opens `count` connections to `address`, one after the other, prints `open` and holds them until killed.
pub fn run(address: &str, count: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut held = Vec::with_capacity(count);
        let mut answer = [0; 4096];
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(REQUEST).await?;
            let read = stream.read(&mut answer).await?;
            if !answer[..read].starts_with(b"HTTP/1.1 200 OK") {
                return Err(io::Error::other("not the expected answer"));
            }
            held.push(stream);
        }
        println!("open");
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            for stream in &held {
                if matches!(stream.try_read(&mut answer), Ok(0)) {
                    return Err(io::Error::other("a held connection was closed"));
                }
            }
        }
    })
}

//! How long a gateway takes from its start to its first healthy answer.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const REQUEST: &[u8] =
    b"GET /api/v1/im/health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

/// Starts `program`, asks `address` for its health every half millisecond, prints the microseconds until it was well, ends it.
pub fn run(address: &str, program: &str, arguments: &[&str]) -> io::Result<()> {
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()?;
    let outcome = loop {
        if is_healthy(address) {
            break Ok(started.elapsed());
        }
        if started.elapsed() > PATIENCE || child.try_wait()?.is_some() {
            break Err(io::Error::other("never healthy"));
        }
        std::thread::sleep(Duration::from_micros(500));
    };
    child.kill()?;
    child.wait()?;
    println!("{}", outcome?.as_micros());
    Ok(())
}

fn is_healthy(address: &str) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(REQUEST)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200 OK"))
    };
    ask().unwrap_or(false)
}

//! A socket over plain TCP: the client's address, which a trusted proxy tells with the PROXY protocol. What passes is `socket`'s.

use std::net::IpAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::admission::ConnectionPermit;
use crate::socket::serve_tcp;
use crate::state::App;

/// The longest header of version 1, with its line end.
const MAX_TEXT_BYTES: usize = 107;
/// The part of a header of version 2 that tells its length.
const BINARY_HEAD_BYTES: usize = 16;
/// What a proxy may add to a header of version 2, such as the client's certificate.
const MAX_BINARY_BYTES: usize = 4096;

/// Serves one connection until it is closed.
pub(super) async fn serve(app: App, mut stream: TcpStream, peer: IpAddr, permit: ConnectionPermit) {
    let mut address = peer.to_canonical();
    // Anybody else's header is no frame, and ends the connection.
    if permit.is_shared {
        let header = proxied_address(&mut stream);
        match timeout(app.settings.socket.connect_timeout, header).await {
            Ok(Some(proxied)) => address = proxied.unwrap_or(address),
            Ok(None) | Err(_) => return,
        }
    }
    serve_tcp(app, stream, address).await;
    drop(permit);
}

/// The client's address by the header at the beginning, which is read; `Some(None)` where there is no header or it names none, `None`
/// where it is malformed or the connection is closed. No frame begins like a header.
async fn proxied_address(stream: &mut TcpStream) -> Option<Option<IpAddr>> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    let mut header = Vec::new();
    match first[0] {
        b'P' => {
            while !header.ends_with(b"\n") {
                if header.len() == MAX_TEXT_BYTES {
                    return None;
                }
                header.push(stream.read_u8().await.ok()?);
            }
        }
        b'\r' => {
            header.resize(BINARY_HEAD_BYTES, 0);
            stream.read_exact(&mut header).await.ok()?;
            let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
            if length > MAX_BINARY_BYTES {
                return None;
            }
            header.resize(BINARY_HEAD_BYTES + length, 0);
            stream
                .read_exact(&mut header[BINARY_HEAD_BYTES..])
                .await
                .ok()?;
        }
        _ => return Some(None),
    }
    let (parsed, length) = ProxyHeader::parse(&header, ParseConfig::default()).ok()?;
    let source = parsed
        .proxied_address()
        .map(|it| it.source.ip().to_canonical());
    (length == header.len()).then_some(source)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn after(sent: &[u8]) -> (Option<Option<IpAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let proxied = proxied_address(&mut stream).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (proxied, rest)
    }

    #[tokio::test]
    async fn a_header_of_either_version_names_the_client_and_leaves_what_follows() {
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        let text = b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 5100\r\n\x10rest";
        assert_eq!(
            after(text).await,
            (Some(Some(client)), b"\x10rest".to_vec())
        );
        let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        binary.extend([192, 0, 2, 7, 198, 51, 100, 1, 0x15, 0xb3, 0x13, 0xec]);
        binary.extend(b"\x10rest");
        assert_eq!(
            after(&binary).await,
            (Some(Some(client)), b"\x10rest".to_vec())
        );
        // LOCAL: a proxy's own health check.
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(after(local).await, (Some(None), Vec::new()));
        assert_eq!(after(b"PROXY UNKNOWN\r\n").await, (Some(None), Vec::new()));
    }

    #[tokio::test]
    async fn no_header_is_left_alone_and_a_malformed_one_is_refused() {
        assert_eq!(after(b"\x10rest").await, (Some(None), b"\x10rest".to_vec()));
        for malformed in [
            &b""[..],
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 5555",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0",
        ] {
            assert_eq!(
                after(malformed).await.0,
                None,
                "{}",
                malformed.escape_ascii()
            );
        }
        let endless = [b'P'; 200];
        assert_eq!(after(&endless).await.0, None);
    }
}

//! One answer of WuKongIM to every call of a request, on both generations.
#![no_main]

use std::cell::LazyCell;
use std::sync::{Arc, Mutex};

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wukongim_gateway::config::Generation;
use wukongim_gateway_fuzz::{Gateway, get, post, runtime};

type Script = Arc<Mutex<Vec<u8>>>;

struct World {
    gateways: [Gateway; 2],
    script: Script,
}

thread_local! {
    static WORLD: LazyCell<World> = const { LazyCell::new(World::new) };
}

impl World {
    fn new() -> Self {
        let runtime = runtime();
        let script = Script::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let told = script.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, told.clone()));
            }
        });
        let gateway = |generation| Gateway::new(runtime.clone(), &url, generation);
        Self {
            gateways: [gateway(Generation::V2), gateway(Generation::V3)],
            script,
        }
    }
}

/// Answers each call on a connection with what stands in the script, as a well-formed HTTP answer.
async fn serve(mut stream: TcpStream, script: Script) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
        while buffer.len() < end + length.unwrap_or(0) {
            stream.read_buf(&mut buffer).await.ok()?;
        }
        buffer.clear();
        let answer = answer(&script.lock().ok()?);
        stream.write_all(&answer).await.ok()?;
    }
}

fn answer(script: &[u8]) -> Vec<u8> {
    let (status, rest) = script.split_first().unwrap_or((&0, &[]));
    let (kind, body) = rest.split_first().unwrap_or((&0, &[]));
    let status = [200, 400, 403, 404, 500, 503][usize::from(*status) % 6];
    let kind = ["application/json", "text/plain"][usize::from(*kind) % 2];
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fuzz_target!(|data: &[u8]| {
    WORLD.with(|world| {
        *world.script.lock().expect("the script") = data.to_vec();
        let group = json!({"channelId": "g", "channelType": 2, "subscribers": ["bob"]});
        let group = group.to_string();
        let conversation = json!({"channelId": "bob", "channelType": 1});
        let message = json!({"channelId": "bob", "channelType": 1, "payload": "eA=="});
        for gateway in &world.gateways {
            for path in [
                "/message/sync?channelId=bob&channelType=1",
                "/message/sync?channelId=g&channelType=2&lastMessageSeq=1&limit=3",
                "/message/sync?channelId=g&channelType=2&beforeMessageSeq=9&limit=3",
                "/system/info",
                "/config",
                "/conversation/list",
                "/channel/subscribers?channelId=g&channelType=2&limit=3",
            ] {
                gateway.ask(get(path).expect("a path"));
            }
            gateway.ask(post("/message/send", message.to_string()));
            // A delete ends the walk of the list, which is shared for two seconds.
            for path in ["/conversation/read", "/conversation/delete"] {
                gateway.ask(post(path, conversation.to_string()));
            }
            for path in ["/channel/subscriber/add", "/channel/delete"] {
                gateway.ask(post(path, group.clone()));
            }
        }
    });
});

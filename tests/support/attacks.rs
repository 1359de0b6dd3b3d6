//! What was tried on WuKongIM's own sockets with success, tried on the gateway's: refused or closed, and WuKongIM alive afterwards, with
//! nothing delivered and nothing stored. For the built-in upstream and for real ones.

use serde_json::{Value, json};
use wkproto::{FrameKind, Send};

use super::actors::payload;
use super::served::Served;
use super::socket::{Client, Hello, Next, token};

/// Who is in it; uids that no other run has.
pub struct Cast {
    pub alice: String,
    pub bob: String,
    pub mallory: String,
    /// A group of alice and bob.
    pub group: String,
}

impl Cast {
    /// Makes the group.
    pub async fn enter(self, app: &Served) -> Self {
        app.user(&self.alice).create_group(&self.group).await.ok();
        app.user(&self.alice)
            .add(&self.group, &[&self.bob])
            .await
            .ok();
        self
    }
}

/// Tries all attacks while alice and bob are connected, who must notice nothing.
pub async fn all(app: &Served, cast: &Cast, is_v2: bool) {
    let mut alice = Client::connected(app, &cast.alice).await;
    let mut bob = Client::json_rpc(app, &cast.bob).await;
    stolen_identities(app, cast).await;
    sends_of_a_stranger(app, cast, is_v2).await;
    frames_of_a_user(app, cast).await;
    json_of_a_user(app, cast).await;
    before_connect(app, cast).await;
    mutated_frames(app, cast, 400).await;
    // Each would get what was delivered before the answer to its ping.
    assert!(alice.is_alive().await);
    let pong = bob.call("ping", json!({})).await;
    assert_eq!(pong["id"], "1", "{pong}");
    for (channel_type, id) in [(1, &cast.bob), (2, &cast.group)] {
        let page = app.user(&cast.alice).sync(channel_type, id, "").await.ok();
        assert_eq!(page.as_array().map(Vec::len), Some(0), "{page}");
    }
    // And it works as before.
    let ack = alice.send(1, &cast.bob, "after all").await;
    assert_eq!((ack.reason, ack.seq), (1, 1));
    assert_eq!(bob.json().await["method"], "recv");
}

/// CONNECTs of others' names: without a token, with a wrong one, with another's, on another device.
async fn stolen_identities(app: &Served, cast: &Cast) {
    let own = Hello::of(app, &cast.mallory).await;
    let of_alice = Hello {
        uid: cast.alice.as_bytes().to_vec(),
        ..own.clone()
    };
    let right = token(app, &cast.alice, 1).await;
    let named = |uid: &str| Hello {
        uid: uid.as_bytes().to_vec(),
        token: String::new(),
        ..own.clone()
    };
    let attacks = [
        of_alice.clone(),
        Hello {
            token: String::new(),
            ..of_alice.clone()
        },
        Hello {
            token: "wrong".to_owned(),
            ..of_alice.clone()
        },
        Hello {
            token: right.clone(),
            device_flag: 7,
            ..of_alice.clone()
        },
        Hello {
            token: right.clone(),
            device_flag: 99,
            ..of_alice
        },
        named("x___vstr"),
        named("____system"),
        named("____manager"),
        Hello {
            uid: format!("{}\0", cast.alice).into_bytes(),
            ..own.clone()
        },
        Hello {
            uid: format!("{}\r\n", cast.alice).into_bytes(),
            ..own.clone()
        },
        Hello {
            uid: format!("{}@{}", cast.alice, cast.bob).into_bytes(),
            ..own.clone()
        },
        Hello {
            key: Some(String::new()),
            ..own.clone()
        },
        Hello {
            key: Some("AAAA".to_owned()),
            ..own.clone()
        },
    ];
    for hello in attacks {
        let mut client = Client::open(app).await;
        assert_eq!(client.refused(&hello).await, (2, Some(1008)), "{hello:?}");
    }
    let mut text = Client::open(app).await;
    let answer = text
        .call("connect", json!({"uid": cast.alice, "token": "wrong"}))
        .await;
    assert_eq!(answer["error"]["code"], 2, "{answer}");
}

/// SENDs that WuKongIM took from its own clients.
async fn sends_of_a_stranger(app: &Served, cast: &Cast, is_v2: bool) {
    // Comes in as anybody else.
    let hello = Hello {
        device_id: "____device".to_owned(),
        ..Hello::of(app, &cast.mallory).await
    };
    let mut mallory = Client::open(app).await;
    mallory.connect(&hello).await;
    assert_eq!(mallory.send(2, &cast.group, "as a device").await.reason, 3);
    for channel_type in [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 99] {
        let ack = mallory
            .send(channel_type, &cast.group, "another type")
            .await;
        assert_eq!(ack.reason, 23, "type {channel_type}");
    }
    let pair = format!("{}@{}", cast.alice, cast.bob);
    let commands = format!("{}____cmd", cast.group);
    let long: &'static str = "x".repeat(32_767).leak();
    for (channel_type, id) in [
        (1, pair.as_str()),
        (2, commands.as_str()),
        (1, long),
        (2, long),
    ] {
        assert_eq!(
            mallory.send(channel_type, id, "x").await.reason,
            16,
            "{}",
            &id[..9]
        );
    }
    if !is_v2 {
        assert_eq!(mallory.send(1, &cast.mallory, "to myself").await.reason, 11);
    }
    let bob: &'static [u8] = cast.bob.clone().into_bytes().leak();
    let mut changed = async |flags, change: &dyn Fn(&mut Send<'static>)| {
        let frame = mallory.send_frame((1, bob), "x", flags, change);
        mallory.write(&frame).await;
        mallory.ack().await.reason
    };
    assert_eq!(changed(0, &|send| send.client_msg_no = long).await, 9);
    let topic = |send: &mut Send<'static>| {
        send.setting = 0x08;
        send.topic = long;
    };
    assert_eq!(changed(0, &topic).await, 9);
    assert_eq!(
        changed(0, &|send| send.setting = 0x10).await,
        9,
        "not encrypted"
    );
    if is_v2 {
        // WuKongIM's own check: the payload is not what the client signed. A real v2 says 9, and v3 closes the connection.
        let reason = changed(5, &|send| send.msg_key = "wrong").await;
        assert!([8, 9].contains(&reason), "{reason}");
    }
}

/// Frames that no client sends, and those that are too large: the connection ends.
async fn frames_of_a_user(app: &Served, cast: &Cast) {
    let hello = Hello::of(app, &cast.mallory).await;
    let of_alice = Hello {
        uid: cast.alice.as_bytes().to_vec(),
        ..hello.clone()
    };
    let connect = Client::open(app).await.connect_frame(&of_alice);
    let sub = [&[0xA0, 10, 0, 0, 0, 5][..], b"group", &[2]].concat();
    let recvack = [vec![0x60, 12], vec![0xFF; 12]].concat();
    let mut large = vec![0x30, 0xC0, 0xCD, 0x2F];
    large.resize(780_000, b'x');
    for (bytes, code) in [
        (connect, 1002),
        (sub, 1002),
        (vec![0xC0, 1, 0], 1002),
        (vec![0x50, 1, 0], 1002),
        (vec![0xD0, 1, 0], 1002),
        (recvack, 1002),
        (large, 1009),
    ] {
        let mut client = Client::open(app).await;
        client.connect(&hello).await;
        client.write(&bytes).await;
        let end = client.next().await;
        // A large message may be cut off while it is still sent.
        let is_closed = matches!(end, Next::Closed(got) if got == Some(code) || code == 1009);
        assert!(is_closed, "{:?}: {end:?}", &bytes[..2]);
    }
    // WuKongIM v2 dies of the second head.
    let mut client = Client::open(app).await;
    client.connect(&hello).await;
    client.raw(&two_heads()).await;
    client.closed().await;
}

/// Two heads of WebSocket frames, of which the second claims 2^62 bytes.
fn two_heads() -> Vec<u8> {
    let mut bytes = vec![0x82, 0x81, 0, 0, 0, 0, 0x70, 0x82, 0xFF];
    bytes.extend((1_u64 << 62).to_be_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// The same by JSON-RPC.
async fn json_of_a_user(app: &Served, cast: &Cast) {
    let mut client = Client::json_rpc(app, &cast.mallory).await;
    let send = |id: &str, number: &str| json!({"channelId": id, "channelType": 1, "clientMsgNo": number, "payload": payload("x")});
    let long = "x".repeat(40_000);
    for (params, reason) in [(send(&long, "n"), 16), (send(&cast.bob, &long), 9)] {
        let answer = client.call("send", params).await;
        assert_eq!(answer["result"]["reasonCode"], reason);
    }
    // Two spellings of a key: the exact one counts.
    let mut twice = send("a@b", "n");
    twice["CHANNELID"] = Value::from(cast.bob.as_str());
    assert_eq!(client.call("send", twice).await["result"]["reasonCode"], 16);
    for (text, code) in [
        ("[".repeat(90_000), 1002),
        (
            format!(
                r#"{{"jsonrpc":"2.0","method":"ping","id":"{}"}}"#,
                "x".repeat(1 << 20)
            ),
            1009,
        ),
        (
            json!({"method": "send", "params": {"payload": "A".repeat(1 << 20)}}).to_string(),
            1009,
        ),
        (r#"{"method":"ping"}{"method":"ping"}"#.to_owned(), 1002),
    ] {
        let mut client = Client::json_rpc(app, &cast.mallory).await;
        client.text(&text).await;
        loop {
            match client.next().await {
                Next::Text(_) => {}
                Next::Closed(got) => {
                    assert!(
                        got == Some(code) || code == 1009,
                        "{got:?}: {}",
                        &text[..20]
                    );
                    break;
                }
                other @ Next::Frame(_) => panic!("{other:?}"),
            }
        }
    }
}

/// What was sent before any CONNECT.
async fn before_connect(app: &Served, cast: &Cast) {
    let mut client = Client::open(app).await;
    client.raw(&two_heads()).await;
    client.closed().await;
    // A frame that claims much, a flood, and long fields.
    let flood = vec![0_u8; 1 << 20];
    let hello = Hello::of(app, &cast.mallory).await;
    let long = |bytes: usize| "x".repeat(bytes);
    let open = Client::open(app).await;
    let frames = [
        vec![0x10, 0xFF, 0xFF, 0xFF, 0x7F],
        flood,
        open.connect_frame(&Hello {
            token: long(32_767),
            ..hello.clone()
        }),
        open.connect_frame(&Hello {
            device_id: long(32_767),
            ..hello.clone()
        }),
        open.connect_frame(&Hello {
            uid: long(32_767).into_bytes(),
            ..hello
        }),
    ];
    for bytes in frames {
        let mut client = Client::open(app).await;
        client.write(&bytes).await;
        let end = client.next().await;
        assert!(matches!(end, Next::Closed(_)), "{end:?}");
    }
    let mut text = Client::open(app).await;
    let params = json!({"uid": long(70_000), "token": "x"});
    text.text(&json!({"id": "1", "method": "connect", "params": params}).to_string())
        .await;
    text.closed().await;
}

/// Changes random bytes of good frames; at worst the connection is closed. `count` frames in all.
pub async fn mutated_frames(app: &Served, cast: &Cast, count: usize) {
    let mut random = fastrand::Rng::with_seed(7);
    let hello = Hello {
        version: 4,
        ..Hello::of(app, &cast.mallory).await
    };
    let mallory: &'static [u8] = cast.mallory.clone().into_bytes().leak();
    let mut left = count;
    while left > 0 {
        let mut client = Client::open(app).await;
        client.connect(&hello).await;
        while left > 0 {
            left -= 1;
            // To a stranger's own name: what is still good after it must not reach anybody else.
            let mut frame = client.send_frame((6, mallory), "x", 0, |_| ());
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..frame.len().min(24));
                frame[at] = random.u8(..);
            }
            client.write(&frame).await;
            client.write(&wkproto::PING).await;
            let is_closed = loop {
                match client
                    .next_within(std::time::Duration::from_millis(100))
                    .await
                {
                    Some(Next::Frame(frame)) if frame.kind == FrameKind::Pong => break false,
                    // None: the gateway waits for the rest of a longer frame.
                    Some(Next::Closed(_)) | None => break true,
                    Some(_) => {}
                }
            };
            if is_closed {
                break;
            }
        }
    }
}

//! What `--embedded` prints: an introduction, a token, two commands to paste, and the addresses of the documentation page and of the chat.

use std::net::SocketAddr;
use std::time::Duration;

use super::{reachable, token};
use crate::config::Settings;

/// Lifetime of the printed tokens.
const TTL: Duration = Duration::from_hours(24);

/// Prints a valid token, two `curl` commands that send and read a message, the documentation page's address if it is served, and the chat's
/// two addresses.
pub fn introduce(settings: &Settings, address: SocketAddr) {
    let token_of = |uid| token(&settings.auth, uid, false, TTL);
    let (Ok(token), Ok(bobs_token)) = (token_of("alice"), token_of("bob")) else {
        return;
    };
    let base = format!("http://{}", reachable(address));
    println!(
        r#"
wukongim-gateway with its built-in development upstream: for development and tests only.
Nothing is kept: messages and groups live in memory and end with this process.

A token for the user alice, good for 24 hours:

  {token}

Paste this to send a message from alice to bob:

  curl -sS {base}/api/v1/im/message/send -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{{"channelId":"bob","channelType":1,"payload":"eyJ0eXBlIjoxLCJjb250ZW50IjoiaGVsbG8ifQ=="}}'

and this to read it:

  curl -sS '{base}/api/v1/im/message/sync?channelId=bob&channelType=1' -H 'Authorization: Bearer {token}'
"#
    );
    if settings.docs.enabled {
        println!("All calls, to read and to try with this token:\n\n  {base}/api/v1/im/docs\n");
    }
    if settings.has_chat_page {
        let chat = format!("{base}/api/v1/im/chat");
        println!(
            "A chat of alice and bob, to open in two tabs:\n\n  {chat}#{token}\n  {chat}#{bobs_token}\n"
        );
    }
}

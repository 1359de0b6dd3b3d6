//! Numbers that v2 does not keep as they are.

use super::patient;
use crate::support::messages::numbered;

#[tokio::test]
async fn a_blank_or_padded_client_msg_no_is_confirmed_like_any_other() {
    let app = patient().await;
    let alice = app.user("alice");
    for (index, number) in [" ", "  ", " n", "n ", "\u{a0}", "\u{3000}n"]
        .iter()
        .enumerate()
    {
        let body = numbered(2, "g", "hi", number);
        let sent = alice.send(&body).await.ok();
        assert_eq!(sent["messageSeq"], index + 1, "{number:?}");
        assert_eq!(sent["clientMsgNo"], *number);
        assert_eq!(alice.send(&body).await.ok(), sent, "{number:?}");
    }
    assert_eq!(app.stored_in("g").len(), 6);
}

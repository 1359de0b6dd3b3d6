//! v2 keys everything by a hash and never compares the id again: the experiment of the notes, step by step.

use serde_json::json;
use wukongim_gateway::embedded::{PERSON, fnv1a64};

use crate::support::Upstream;

/// Has the hash of the pair's stored id.
const TWIN: &str = "xbdZAqbat_QtXO";
const PAIR: &str = "hc-bob@hc-alice";

#[tokio::test]
async fn a_group_with_the_hash_of_a_pair_reads_the_pairs_messages() {
    assert_eq!(fnv1a64(&format!("{TWIN}-2")), fnv1a64(&format!("{PAIR}-1")));
    let upstream = Upstream::v2().await;
    upstream.send("hc-alice", "hc-bob", 1, "private").await.ok();

    let page = upstream.sync("anybody", TWIN, 2).await.ok();
    let message = &page["messages"][0];
    assert_eq!(message["channel_type"], 1, "{page}");
    assert_eq!(message["channel_id"], "hc-bob", "{page}");
    assert_eq!(upstream.texts("anybody", TWIN, 2).await, ["private"]);
    let seq = upstream
        .get(&format!(
            "/channel/max_message_seq?channel_id={TWIN}&channel_type=2"
        ))
        .await
        .ok();
    assert_eq!(seq["message_seq"], 1);
    let members = upstream
        .get(&format!("/cluster/channels/{TWIN}/2/subscribers"))
        .await
        .ok();
    assert_eq!(members, json!([]));
    assert_eq!(
        named(&upstream, TWIN, 2).await,
        "",
        "there is no such group yet"
    );

    upstream.create(TWIN, &["mallory"]).await;
    let pair = PAIR.replace('@', "%40");
    assert_eq!(
        named(&upstream, &pair, 1).await,
        TWIN,
        "the pair's record is the group's now"
    );
    upstream.send("mallory", TWIN, 2, "mine").await.ok();
    assert_eq!(
        upstream.texts("mallory", TWIN, 2).await,
        ["private"],
        "the group's own messages do not appear"
    );
    let stored = upstream.embedded.state().messages(PERSON, PAIR);
    assert_eq!(stored.len(), 1);
}

#[tokio::test]
async fn two_ids_with_one_hash_share_their_members_and_their_record() {
    // The pair's id is no group's, so its members are put there by the doors the server has for them.
    let upstream = Upstream::v2().await;
    upstream.create(TWIN, &["alice"]).await;
    let add = json!({ "channel_id": PAIR, "channel_type": 1, "uids": ["bob"] });
    upstream.post("/channel/blacklist_add", add).await.ok();
    let denied = upstream
        .get(&format!("/cluster/channels/{TWIN}/2/denylist"))
        .await
        .ok();
    assert_eq!(denied, json!(["bob"]));
    let members = upstream
        .get("/cluster/channels/hc-bob%40hc-alice/1/subscribers")
        .await
        .ok();
    assert_eq!(members, json!(["alice"]));
}

#[tokio::test]
async fn v3_compares_ids_and_knows_no_twins() {
    let upstream = Upstream::v3().await;
    upstream.send("hc-alice", "hc-bob", 1, "private").await.ok();
    upstream.create(TWIN, &["mallory"]).await;
    let refusal = upstream.sync("mallory", TWIN, 2).await.refusal();
    assert!(refusal.contains("channel not found"), "{refusal}");
}

async fn named(upstream: &Upstream, channel_id: &str, channel_type: u8) -> String {
    let path = format!("/cluster/channels?channel_id={channel_id}&channel_type={channel_type}");
    let body = upstream.get(&path).await.ok();
    assert_eq!(body["data"].as_array().expect("data").len(), 1, "{body}");
    body["data"][0]["channel_id"]
        .as_str()
        .expect("id")
        .to_owned()
}

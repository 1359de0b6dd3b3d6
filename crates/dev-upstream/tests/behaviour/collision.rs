//! v2 keys everything by a hash and never compares the id again: the experiment of the notes, step by step.

use dev_upstream::{PERSON, fnv1a64};
use serde_json::json;

use crate::support::Upstream;

/// Has the hash of the pair's stored id.
const TWIN: &str = "xbdZAqbat_QtXO";
const PAIR: &str = "hc-bob@hc-alice";
/// Two group ids with one hash. FNV is linear enough that a reduced lattice finds such a pair in a second.
const TWIN_GROUPS: [&str; 2] = ["twins-R54o9P90Go-Z", "twins-Q76Q5J92otdM"];

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
    let of_mallory = json!({ "uid": "mallory", "msg_count": 1 });
    let rows = upstream.post("/conversation/sync", of_mallory).await.ok();
    assert_eq!(rows[0]["channel_id"], TWIN, "{rows}");
    assert_eq!(rows[0]["recents"][0]["channel_type"], 1, "{rows}");
    let stored = upstream.server.state().messages(PERSON, PAIR);
    assert_eq!(stored.len(), 1);
}

#[tokio::test]
async fn two_groups_with_one_hash_share_their_members_lists_record_and_history() {
    let upstream = Upstream::v2().await;
    let [first, second] = TWIN_GROUPS;
    upstream.create(first, &["alice"]).await;
    upstream.send("alice", first, 2, "among us").await.ok();
    upstream.create(second, &["mallory"]).await;

    let mut members = upstream.server.state().members(first);
    members.sort();
    assert_eq!(members, ["alice", "mallory"], "a stranger joined");
    assert_eq!(named(&upstream, first, 2).await, second);
    let page = upstream.sync("mallory", second, 2).await.ok();
    assert_eq!(page["messages"][0]["channel_id"], first, "{page}");
    let deny = json!({ "channel_id": second, "channel_type": 2, "uids": ["alice"] });
    upstream.post("/channel/blacklist_add", deny).await.ok();
    let path = format!("/cluster/channels/{first}/2/denylist");
    assert_eq!(upstream.get(&path).await.ok(), json!(["alice"]));
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

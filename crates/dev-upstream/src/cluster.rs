//! v2's cluster API: which nodes exist, and which of them has a message.
//!
//! All nodes of a cluster share their data. A test can let only the first one store new messages, and lose them.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{
    V2Release,
    ids::unix_seconds,
    log::Message,
    reply::{Reply, Request},
    server::Shared,
    state::{Inner, State},
};

/// The id of the first node, which leads all channels; the others follow consecutively.
pub(super) const FIRST: u64 = 1001;

impl State {
    /// Adds a node and returns its number.
    pub(super) fn join_node(&self) -> u64 {
        let mut inner = self.lock();
        inner.nodes += 1;
        FIRST + inner.nodes - 1
    }
}

/// `/cluster/info`.
pub(super) fn info(state: &State) -> Reply {
    let nodes = state.lock().nodes;
    let created_at = unix_seconds(SystemTime::now());
    let members: Vec<Value> = (0..nodes)
        .map(|index| {
            let (id, address) = (FIRST + index, format!("127.0.0.1:{}", 11110 + index));
            json!({
                "id": id, "clusterAddr": address, "online": true, "allowVote": true, "status": 3, "createdAt": created_at,
            })
        })
        .collect();
    let replicas: Vec<u64> = (0..nodes).map(|index| FIRST + index).collect();
    let slots: Vec<Value> = (0..64)
        .map(|id| match id {
            // A zero is omitted.
            0 => json!({ "leader": FIRST, "term": 1, "replicas": replicas }),
            _ => json!({ "id": id, "leader": FIRST, "term": 1, "replicas": replicas }),
        })
        .collect();
    Reply::json(
        200,
        &json!({
            "version": 1, "slotCount": 64, "slotReplicaCount": 3, "channelReplicaCount": 3, "term": 1,
            "nodes": members, "slots": slots,
        }),
    )
}

/// `/cluster/channels/{id}/{type}/config`: the owner of the log under the id's key. Only the leader of the id's slot answers, which is the
/// first node; the others forward queries that name its node id.
pub(super) fn log_config(
    shared: &Shared,
    channel_id: &str,
    channel_type: u8,
    request: &Request<'_>,
) -> Reply {
    let asked = match request.param("node_id").parse() {
        Ok(0) | Err(_) => shared.node,
        Ok(node) => node,
    };
    if asked != FIRST {
        return Reply::bad("slot leader is not current node");
    }
    let mut inner = shared.state.lock();
    let owner = inner
        .settled(channel_id, channel_type)
        .and_then(|channel| channel.log.owner().map(str::to_owned));
    let Some((id, channel_type)) = owner.as_deref().and_then(|owner| owner.rsplit_once('-')) else {
        return Reply::bad("not found");
    };
    let now = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
    let mut config = json!({
        "channel_id": id, "channel_type": channel_type.parse::<u8>().unwrap_or(0), "replica_max_count": 3,
        "replicas": [FIRST], "learder_id": FIRST, "term": 1, "created_at": now, "updated_at": now,
    });
    if shared.release() >= V2Release::V2_2_0 {
        config["conf_version"] = 1.into();
    }
    Reply::json(200, &config)
}

/// `/cluster/slots/{id}/localReplica`, which came with v2.2.0.
pub(super) fn slot_replica(shared: &Shared) -> Reply {
    let mut replica = json!({
        "replica_id": shared.node, "leader_id": FIRST, "running": 1, "last_log_seq": 0, "last_log_time": 0, "term": 1, "conf_version": 0,
    });
    if shared.release() >= V2Release::V2_2_5 {
        replica["applied_index"] = 0.into();
        replica["committed_index"] = 0.into();
    }
    Reply::json(200, &replica)
}

/// `/cluster/messages` with a node and a message's id: what that node has stored.
pub(super) fn messages(state: &State, request: &Request<'_>) -> Reply {
    let node: u64 = request.param("node_id").parse().unwrap_or(0);
    let id: i64 = request.param("message_id").parse().unwrap_or(0);
    let inner = state.lock();
    if !(FIRST..FIRST + inner.nodes).contains(&node) {
        // v2 panics.
        return Reply::raw(500, "", "");
    }
    let is_there = node == FIRST || inner.copied_up_to.is_none_or(|last| id <= last);
    let found = find(&inner, id).filter(|_| is_there);
    let rows: Vec<Value> = found.map(row).into_iter().collect();
    Reply::json(200, &json!({ "total": 0, "data": rows }))
}

fn find(inner: &Inner, id: i64) -> Option<&Message> {
    let mut logs = inner.channels.values().map(|channel| channel.log.iter());
    let message = logs.find_map(|mut log| log.find(|message| message.message_id == id))?;
    Some(message)
}

fn row(message: &Message) -> Value {
    let time = SystemTime::UNIX_EPOCH
        + std::time::Duration::from_secs(u64::try_from(message.timestamp).unwrap_or(0));
    json!({
        "message_id": message.message_id.to_string(),
        "message_seq": message.message_seq,
        "client_msg_no": *message.client_msg_no,
        "timestamp": message.timestamp,
        "timestamp_format": super::http_v2::minute(time),
        "channel_id": *message.channel_id,
        "channel_type": message.channel_type,
        "topic": "",
        "from_uid": *message.from_uid,
        "payload": *message.payload,
        "expire": message.expire,
        "term": 1,
        "is_stream": 0,
    })
}

//! Live delivery: a message that was taken goes to the connections of those who may read it. Each session seals it for its own client.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::time::sleep;
use wkproto::flags;

use super::{
    Dialect,
    ids::unix_seconds,
    keys::{Key, PERSON},
    log::Message,
    state::{Inner, List, State},
};

/// The longest pause of the task that delivers v2's API sends when they are stored.
const MAX_PAUSE: Duration = Duration::from_millis(5);

/// What a session writes to its client.
#[derive(Debug, Clone)]
pub(super) enum Outgoing {
    Message(Arc<LiveMessage>),
    /// The last one: v2 says it in a DISCONNECT with this text, v3 only closes.
    Kicked(&'static str),
    /// These bytes as they are.
    #[cfg(feature = "testing")]
    Raw(Arc<[u8]>),
}

/// A message as RECV has it, before it is sealed.
#[derive(Debug)]
pub(super) struct LiveMessage {
    /// With the stored channel id, that of the commands left out.
    pub(super) message: Message,
    /// See [`wkproto::flags`].
    pub(super) flags: u8,
    /// See [`wkproto::setting`].
    pub(super) setting: u8,
    pub(super) topic: String,
    /// Unix time.
    pub(super) seconds: u32,
    pub(super) payload: Vec<u8>,
}

impl LiveMessage {
    /// A message from the API: v3 drops the red dot, and knows the time though it does not store it.
    pub(super) fn of_api(dialect: Dialect, message: Message) -> Self {
        let bit = |set, flag| if set { flag } else { 0 };
        let is_v2 = dialect == Dialect::V2;
        Self {
            flags: bit(message.red_dot && is_v2, flags::RED_DOT)
                | bit(message.sync_once && is_v2, flags::SYNC_ONCE),
            setting: 0,
            topic: String::new(),
            seconds: u32::try_from(unix_seconds(SystemTime::now())).unwrap_or(0),
            payload: STANDARD.decode(&*message.payload).unwrap_or_default(),
            message,
        }
    }
}

/// A message of v2's API that is delivered when it is stored.
#[derive(Debug)]
struct Due {
    at: Instant,
    channel: Key,
    message_id: i64,
    /// What readers know the channel as: commands are stored apart.
    read_as: Arc<str>,
}

/// v2's API sends that wait to be stored, in their order, and whether a task delivers them.
#[derive(Debug, Default)]
pub(super) struct Pending {
    due: VecDeque<Due>,
    is_served: bool,
}

impl Inner {
    /// Delivers a message to all connections of its channel's members, but not to the one that it came from.
    pub(super) fn deliver(&mut self, live: LiveMessage, from: Option<u64>) {
        if self.online.is_empty() {
            return;
        }
        let message = &live.message;
        let uids: Vec<Arc<str>> = if message.channel_type == PERSON {
            let pair = message.channel_id.split_once('@');
            let (one, other) = pair.unwrap_or((&message.channel_id, &message.channel_id));
            let mut uids = vec![Arc::from(one)];
            uids.extend((one != other).then(|| Arc::from(other)));
            uids
        } else {
            let channel = self.channel(&message.channel_id, message.channel_type);
            channel.map_or_else(Vec::new, |channel| {
                let members = channel.list(List::Members).values();
                members.map(|member| member.uid.clone()).collect()
            })
        };
        self.deliver_to(uids, live, from);
    }

    /// Delivers a message to all connections of these users, but not to the one that it came from.
    pub(super) fn deliver_to(
        &mut self,
        uids: impl IntoIterator<Item = Arc<str>>,
        live: LiveMessage,
        from: Option<u64>,
    ) {
        let outgoing = Outgoing::Message(Arc::new(live));
        for uid in uids {
            self.online.queue(&uid, &outgoing, from);
        }
    }

    /// Has a queued message delivered at `at`, when it is stored, if anybody is online.
    pub(super) fn deliver_later(
        &mut self,
        at: Instant,
        channel: Key,
        message_id: i64,
        read_as: Arc<str>,
    ) {
        if !self.online.is_empty() {
            let due = &mut self.pending.due;
            let place = due.partition_point(|other| other.at <= at);
            due.insert(
                place,
                Due {
                    at,
                    channel,
                    message_id,
                    read_as,
                },
            );
        }
    }

    /// Stores and delivers what is due; how long until there is more, `None` when nothing waits.
    fn deliver_due(&mut self) -> Option<Duration> {
        loop {
            let now = Instant::now();
            let Some(due) = self.pending.due.pop_front_if(|due| due.at <= now) else {
                let next = self.pending.due.front();
                self.pending.is_served = next.is_some();
                return next.map(|due| (due.at - now).min(MAX_PAUSE));
            };
            let keep = self.keep;
            let Some(channel) = self.channels.get_mut(&due.channel) else {
                continue;
            };
            channel.log.settle(now, keep);
            let Some(stored) = channel.log.newest(due.message_id) else {
                continue;
            };
            let message = Message {
                channel_id: due.read_as,
                ..Message::clone(&stored)
            };
            self.deliver(LiveMessage::of_api(self.dialect, message), None);
        }
    }
}

impl State {
    /// Starts the task that delivers v2's API sends, unless nothing waits or one runs. It ends by itself.
    pub(super) fn serve_pending(self: &Arc<Self>) {
        let mut inner = self.lock();
        if inner.pending.due.is_empty() || inner.pending.is_served {
            return;
        }
        inner.pending.is_served = true;
        drop(inner);
        let state = self.clone();
        tokio::spawn(async move {
            loop {
                let pause = state.lock().deliver_due();
                let Some(pause) = pause else { return };
                sleep(pause).await;
            }
        });
    }
}

//! Conversations in a v2 cluster with a manager token, put together from what each node has: its nodes refuse each other's calls, since only
//! the gateway sends the token.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{ConversationPage, MAX_WALK_ROWS, SHRINK, V2_PAGE_ROWS, channel_of, max_bytes};
use crate::domain::{ChannelRef, Uid};
use crate::wukongim::call::{Node, Policy};
use crate::wukongim::dialect::v2::conversations as v2;
use crate::wukongim::{Client, Error, Generation};

/// How long one node may take.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

impl Client {
    /// The walk in a v2 cluster with a manager token, whose nodes refuse each other's calls.
    pub(super) async fn walk_by_hand(
        &self,
        user: &Uid,
        payload_bytes: usize,
        mut take: impl FnMut(ConversationPage) + Send,
    ) -> Result<bool, Error> {
        let (ids, pointers) = tokio::try_join!(self.channel_ids(user), self.pointers(user))?;
        let count = ids.len();
        let channels = ids
            .iter()
            .filter_map(|(id, channel_type)| channel_of(user, id, *channel_type));
        let channels: Vec<ChannelRef<'_>> = channels.take(MAX_WALK_ROWS).collect();
        let (mut rest, mut size) = (&channels[..], V2_PAGE_ROWS);
        while !rest.is_empty() {
            let (part, after) = rest.split_at(size.min(rest.len()));
            match self.by_hand(user, part, &pointers, payload_bytes).await {
                Err(Error::TooLarge { .. }) if size > 1 => size = (size / SHRINK).max(1),
                page => {
                    take(page?);
                    (rest, size) = (after, V2_PAGE_ROWS);
                }
            }
        }
        Ok(count < v2::MAX_ROWS)
    }

    pub(super) async fn pointers(&self, user: &Uid) -> Result<v2::Pointers, Error> {
        let policy = Policy::read("conversation_pointers");
        let pointers = self.on_node(policy, |node| v2::pointers(node, user));
        pointers.await
    }

    /// The newest messages as each node has them in its own storage. So many nodes must answer that each stored message is on one of them.
    pub(super) async fn by_hand(
        &self,
        user: &Uid,
        channels: &[ChannelRef<'_>],
        pointers: &v2::Pointers,
        payload_bytes: usize,
    ) -> Result<ConversationPage, Error> {
        let topology = self.topology().await?;
        let max_bytes = max_bytes(channels.len(), payload_bytes);
        let asked = self.nodes.all().iter().map(async |node: &Arc<Node>| {
            if node.ejection.is_ejected() {
                return Err(Error::Connect);
            }
            node.check_generation().await?;
            let messages = v2::own_messages(node, user, channels, max_bytes);
            timeout(NODE_TIMEOUT, messages)
                .await
                .unwrap_or(Err(Error::Timeout))
        });
        let mut pages = Vec::new();
        let mut failure = None;
        for page in join_all(asked).await {
            match page {
                Ok(page) => pages.push(page),
                Err(error @ Error::TooLarge { .. }) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        if topology.has_all_messages(pages.len()) {
            return Ok(v2::merge(pages, pointers));
        }
        Err(failure.unwrap_or_else(|| {
            tracing::error!(
                "wukongim.api_urls names too few nodes of a cluster with a manager token to list conversations"
            );
            Error::Decode("conversation_messages")
        }))
    }

    /// Whether this is a v2 cluster whose nodes refuse each other's calls, since only the gateway sends the manager token.
    pub async fn is_token_cluster(&self) -> Result<bool, Error> {
        Ok(self.transport.has_token()
            && self.generation().await? == Generation::V2
            && self.topology().await?.is_multi_node())
    }
}

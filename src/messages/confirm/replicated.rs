//! v2 shows messages that a cluster may still lose: only those on a majority of nodes count as stored. Knows nothing of the waiters.

use crate::messages::Stored;
use crate::wukongim::{Client, Page};

/// Whether a visible message is on a majority of its channel's nodes.
pub(in crate::messages) async fn is_replicated(client: &Client, stored: Stored) -> bool {
    matches!(client.is_replicated(stored.id, stored.seq).await, Ok(true))
}

/// Removes the messages from a page that are not yet on a majority of nodes; returns whether there were any.
///
/// A log is replicated in order, so the replicated messages are a prefix of the page, usually the whole page. Binary search, starting at
/// the newest message. Other channels' messages, which a page does not show, are not checked: v2 stores those of one channel per log, and
/// `check_log_owner` refuses to send to any other.
pub(super) async fn truncate_unreplicated(client: &Client, page: &mut Page) -> bool {
    let messages = &page.messages;
    let (mut replicated, mut unreplicated) = (0, messages.len());
    let mut next = unreplicated;
    while replicated < unreplicated {
        let (id, seq) = (messages[next - 1].id, messages[next - 1].seq);
        if is_replicated(client, Stored { id, seq }).await {
            replicated = next;
        } else {
            unreplicated = next - 1;
        }
        next = (replicated + unreplicated).div_ceil(2);
    }
    if replicated == messages.len() {
        return false;
    }
    page.messages.truncate(replicated);
    let newest = page.messages.last().map(|message| message.seq);
    page.seq_range = page
        .seq_range
        .zip(newest)
        .map(|((low, _), high)| (low, high));
    true
}

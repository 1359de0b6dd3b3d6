//! What v2 shows and may yet lose: in a cluster only what enough nodes have is stored. Knows nothing of who waits for what.

use super::Stored;
use crate::wukongim::{Client, Page};

/// Whether a message that was seen will stay.
pub(super) async fn is_safe(client: &Client, stored: Stored) -> bool {
    matches!(client.is_replicated(stored.id, stored.seq).await, Ok(true))
}

/// Takes off a page what too few nodes of a cluster have so far; whether there was any.
///
/// A log is copied from its beginning on, so what is safe is all up to some message, most of the time the newest.
pub(super) async fn keep_safe(client: &Client, page: &mut Page) -> bool {
    let messages = &page.messages;
    let (mut safe, mut doubtful) = (0, messages.len());
    let mut next = doubtful;
    while safe < doubtful {
        let (id, seq) = (messages[next - 1].id, messages[next - 1].seq);
        if is_safe(client, Stored { id, seq }).await {
            safe = next;
        } else {
            doubtful = next - 1;
        }
        next = (safe + doubtful).div_ceil(2);
    }
    if safe == messages.len() {
        return false;
    }
    page.messages.truncate(safe);
    let newest = page.messages.last().map(|message| message.seq);
    page.span = page.span.zip(newest).map(|((low, _), high)| (low, high));
    true
}

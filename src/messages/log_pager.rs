//! Reads a channel's log page by page, upwards or downwards, with fewer messages per page where they are large. Knows nothing of what is
//! searched for.

use crate::domain::{Channel, Uid};
use crate::wukongim::{Client, Error, Page, Window};

/// Maximum messages per page.
const MAX_PAGE_MESSAGES: usize = 100;
/// Limit of one page's answer; a page of a single message may be twice as large.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The number of messages to request next.
pub(super) struct PageSize {
    current: usize,
    max: usize,
}

impl PageSize {
    pub(super) fn of(max: usize) -> Self {
        Self { current: max, max }
    }

    pub(super) fn size(&self) -> usize {
        self.current
    }

    /// After an answer that was too large; false where a single message was requested.
    pub(super) fn shrink(&mut self) -> bool {
        let can_shrink = self.current > 1;
        self.current = (self.current / 4).max(1);
        can_shrink
    }

    /// After an answer that fitted.
    pub(super) fn grow(&mut self) {
        self.current = (self.current * 2).min(self.max);
    }
}

/// One page of at most `limit` messages.
pub(super) async fn page(
    client: &Client,
    reader: &Uid,
    channel: &Channel,
    window: Window,
    limit: usize,
) -> Result<Page, Error> {
    let max_bytes = if limit == 1 {
        2 * MAX_PAGE_BYTES
    } else {
        MAX_PAGE_BYTES
    };
    client.page(reader, channel, window, limit, max_bytes).await
}

#[derive(Clone, Copy)]
enum Cursor {
    Newest,
    Below(u64),
    From(u64),
    End,
}

/// Reads consecutive pages in one direction.
pub(super) struct LogPager<'a> {
    client: &'a Client,
    reader: &'a Uid,
    channel: &'a Channel,
    page_size: PageSize,
    cursor: Cursor,
}

impl<'a> LogPager<'a> {
    /// Downwards: from just below a seq, or from the newest message.
    pub(super) fn down(
        client: &'a Client,
        reader: &'a Uid,
        channel: &'a Channel,
        below: Option<u64>,
    ) -> Self {
        let cursor = below.map_or(Cursor::Newest, down_to);
        Self {
            client,
            reader,
            channel,
            page_size: PageSize::of(MAX_PAGE_MESSAGES),
            cursor,
        }
    }

    /// Upwards from this seq.
    pub(super) fn up(client: &'a Client, reader: &'a Uid, channel: &'a Channel, from: u64) -> Self {
        Self {
            cursor: Cursor::From(from),
            ..Self::down(client, reader, channel, None)
        }
    }

    /// Whether all pages have been read.
    pub(super) fn is_exhausted(&self) -> bool {
        matches!(self.cursor, Cursor::End)
    }

    /// The next page; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, Error> {
        loop {
            let limit = self.page_size.size();
            let window = match self.cursor {
                Cursor::End => return Ok(None),
                Cursor::Newest => Window::Newest,
                Cursor::From(from) => Window::Up { from, until: None },
                // Reads an upward page that ends where the last one began, since v2 returns nothing for some downward requests.
                Cursor::Below(low) => Window::Up {
                    from: low.saturating_sub(limit as u64).max(1),
                    until: Some(low),
                },
            };
            let page = match page(self.client, self.reader, self.channel, window, limit).await {
                Err(Error::TooLarge { .. }) if self.page_size.shrink() => continue,
                page => page?,
            };
            self.cursor = match (self.cursor, page.seq_range) {
                (Cursor::From(_), Some((_, high))) if page.received >= limit => {
                    Cursor::From(high + 1)
                }
                (_, None) | (Cursor::From(_), _) => Cursor::End,
                (_, Some((low, _))) => down_to(low),
            };
            self.page_size.grow();
            return Ok(Some(page));
        }
    }
}

fn down_to(low: u64) -> Cursor {
    if low <= 1 {
        Cursor::End
    } else {
        Cursor::Below(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_size_shrinks_and_grows_again() {
        let mut page_size = PageSize::of(64);
        let mut sizes = Vec::new();
        while page_size.shrink() {
            sizes.push(page_size.size());
        }
        assert_eq!(sizes, [16, 4, 1]);
        for size in [2, 4, 8, 16, 32, 64, 64] {
            page_size.grow();
            assert_eq!(page_size.size(), size);
        }
    }
}

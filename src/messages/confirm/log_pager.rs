//! Reads a channel's log page by page, upwards or downwards, with fewer messages per page where they are large. Knows nothing of what is
//! searched for.

use crate::domain::{Channel, Uid};
use crate::wukongim::{Client, Error, Page, Window};

/// Maximum messages per page.
const MAX_PAGE_MESSAGES: usize = 100;
/// Limit of one page's answer; a page of a single message may be twice as large.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The number of messages to request next.
#[derive(Clone, Copy)]
pub(super) struct PageSize {
    current: usize,
    max: usize,
}

impl PageSize {
    pub(super) fn of(max: usize) -> Self {
        Self { current: max, max }
    }

    /// One page, and whether it has all the messages that were requested. `window` depends on their number, which is reduced while the
    /// answer is too large.
    pub(super) async fn read(
        &mut self,
        client: &Client,
        reader: &Uid,
        channel: &Channel,
        window: impl Fn(usize) -> Window,
    ) -> Result<(Page, bool), Error> {
        loop {
            let limit = self.current;
            let max_bytes = if limit == 1 {
                2 * MAX_PAGE_BYTES
            } else {
                MAX_PAGE_BYTES
            };
            let page = client
                .page(reader, channel, window(limit), limit, max_bytes)
                .await;
            match page {
                Err(Error::TooLarge { .. }) if limit > 1 => self.shrink(),
                page => {
                    let page = page?;
                    self.grow();
                    let is_full = page.received >= limit;
                    return Ok((page, is_full));
                }
            }
        }
    }

    fn shrink(&mut self) {
        self.current = (self.current / 4).max(1);
    }

    fn grow(&mut self) {
        self.current = (self.current * 2).min(self.max);
    }
}

#[derive(Clone, Copy)]
enum Cursor {
    Newest,
    Below(u64),
    From(u64),
    End,
}

/// Reads consecutive pages in one direction.
pub(in crate::messages) struct LogPager<'a> {
    client: &'a Client,
    reader: &'a Uid,
    channel: &'a Channel,
    page_size: PageSize,
    cursor: Cursor,
}

impl<'a> LogPager<'a> {
    /// Downwards from the newest message.
    pub(in crate::messages) fn newest(
        client: &'a Client,
        reader: &'a Uid,
        channel: &'a Channel,
    ) -> Self {
        Self {
            client,
            reader,
            channel,
            page_size: PageSize::of(MAX_PAGE_MESSAGES),
            cursor: Cursor::Newest,
        }
    }

    /// Downwards from just below this seq instead.
    pub(super) fn down_from(self, below: u64) -> Self {
        let cursor = down_to(below);
        Self { cursor, ..self }
    }

    /// Upwards from this seq instead.
    pub(in crate::messages) fn up_from(self, seq: u64) -> Self {
        let cursor = Cursor::From(seq);
        Self { cursor, ..self }
    }

    /// The seq of the channel's newest message.
    pub(in crate::messages) async fn newest_seq(&self) -> Result<Option<u64>, Error> {
        let mut one = PageSize::of(1);
        let newest = one.read(self.client, self.reader, self.channel, |_| Window::Newest);
        let (page, _) = newest.await?;
        Ok(page.seq_range.map(|(_, high)| high))
    }

    /// Whether all pages have been read.
    pub(in crate::messages) fn is_exhausted(&self) -> bool {
        matches!(self.cursor, Cursor::End)
    }

    /// The next page; `None` after the last one.
    pub(in crate::messages) async fn next(&mut self) -> Result<Option<Page>, Error> {
        let cursor = self.cursor;
        let window = |limit| match cursor {
            Cursor::Newest | Cursor::End => Window::Newest,
            Cursor::From(from) => Window::Up { from, until: None },
            // Reads an upward page that ends where the last one began, since v2 returns nothing for some downward requests.
            Cursor::Below(low) => Window::Up {
                from: low.saturating_sub(limit as u64).max(1),
                until: Some(low),
            },
        };
        if self.is_exhausted() {
            return Ok(None);
        }
        let page = self
            .page_size
            .read(self.client, self.reader, self.channel, window);
        let (page, is_full) = page.await?;
        self.cursor = match (cursor, page.seq_range) {
            (Cursor::From(_), Some((_, high))) if is_full => Cursor::From(high + 1),
            (_, None) | (Cursor::From(_), _) => Cursor::End,
            (_, Some((low, _))) => down_to(low),
        };
        Ok(Some(page))
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
        for size in [16, 4, 1, 1] {
            page_size.shrink();
            assert_eq!(page_size.current, size);
        }
        for size in [2, 4, 8, 16, 32, 64, 64] {
            page_size.grow();
            assert_eq!(page_size.current, size);
        }
    }
}

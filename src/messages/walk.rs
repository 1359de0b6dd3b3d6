//! Reading a channel's log page by page, up or down: in smaller steps where messages are large, in larger ones again where they are
//! not. Knows nothing of what is looked for.

use crate::domain::{Channel, Uid};
use crate::wukongim::{Client, Error, Generation, Page, Window};

/// The most messages of one page.
const MOST: usize = 100;
/// The largest answer to one page; a single message may be larger.
const BYTES: usize = 2 * 1024 * 1024;

/// How many messages to ask for next.
pub(super) struct Step {
    now: usize,
    most: usize,
}

impl Step {
    pub(super) fn of(most: usize) -> Self {
        Self { now: most, most }
    }

    pub(super) fn size(&self) -> usize {
        self.now
    }

    /// The answer was too large; false where one message alone is.
    pub(super) fn shrink(&mut self) -> bool {
        let smaller = self.now > 1;
        self.now = (self.now / 4).max(1);
        smaller
    }

    /// An answer fitted: large messages may lie behind now.
    pub(super) fn grow(&mut self) {
        self.now = (self.now * 2).min(self.most);
    }
}

/// One page of at most `limit` messages: of v2, since nobody looks for what v3 has answered.
pub(super) async fn page(
    client: &Client,
    reader: &Uid,
    channel: &Channel,
    window: Window,
    limit: usize,
) -> Result<Page, Error> {
    let max_bytes = if limit == 1 { 2 * BYTES } else { BYTES };
    client
        .permitted_page(Generation::V2, reader, channel, window, limit, max_bytes)
        .await
}

#[derive(Clone, Copy)]
enum At {
    Newest,
    Below(u64),
    From(u64),
    End,
}

/// Pages in one direction, without a gap.
pub(super) struct Walk<'a> {
    client: &'a Client,
    reader: &'a Uid,
    channel: &'a Channel,
    step: Step,
    at: At,
}

impl<'a> Walk<'a> {
    /// Downwards: from just below a seq, or from the newest message.
    pub(super) fn down(
        client: &'a Client,
        reader: &'a Uid,
        channel: &'a Channel,
        below: Option<u64>,
    ) -> Self {
        let at = below.map_or(At::Newest, down_to);
        Self {
            client,
            reader,
            channel,
            step: Step::of(MOST),
            at,
        }
    }

    /// Upwards from this seq.
    pub(super) fn up(client: &'a Client, reader: &'a Uid, channel: &'a Channel, from: u64) -> Self {
        Self {
            at: At::From(from),
            ..Self::down(client, reader, channel, None)
        }
    }

    /// Whether all pages have been read.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.at, At::End)
    }

    /// The next page; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, Error> {
        loop {
            let limit = self.step.size();
            let window = match self.at {
                At::End => return Ok(None),
                At::Newest => Window::Newest,
                At::From(from) => Window::Up { from, until: None },
                // By upward pages that end where the last one began: v2 gives nothing for some downward ones.
                At::Below(low) => Window::Up {
                    from: low.saturating_sub(limit as u64).max(1),
                    until: Some(low),
                },
            };
            let page = match page(self.client, self.reader, self.channel, window, limit).await {
                Err(Error::TooLarge { .. }) if self.step.shrink() => continue,
                page => page?,
            };
            self.at = match (self.at, page.span) {
                (At::From(_), Some((_, high))) if page.received >= limit => At::From(high + 1),
                (_, None) | (At::From(_), _) => At::End,
                (_, Some((low, _))) => down_to(low),
            };
            self.step.grow();
            return Ok(Some(page));
        }
    }
}

fn down_to(low: u64) -> At {
    if low <= 1 { At::End } else { At::Below(low) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_shrinks_and_grows_again() {
        let mut step = Step::of(64);
        let mut sizes = Vec::new();
        while step.shrink() {
            sizes.push(step.size());
        }
        assert_eq!(sizes, [16, 4, 1]);
        for size in [2, 4, 8, 16, 32, 64, 64] {
            step.grow();
            assert_eq!(step.size(), size);
        }
    }
}

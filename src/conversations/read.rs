//! Reading and deleting a conversation.

use std::sync::Arc;

use serde_json::json;

use super::walks::Walks;
use super::{Conversations, Error};
use crate::authorization::Denial;
use crate::context::inherit_identity;
use crate::domain::{Channel, ConversationKey, Uid};
use crate::limits::Permit;
use crate::wukongim::{self, Generation, Rejection, Window};

/// The command to the user's own devices.
const READ_COMMAND: &str = "conversationRead";
/// Limit of a page whose content is not used.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// How far a conversation is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadState {
    /// Unread messages.
    pub unread: u64,
    /// The seq of the last read message; 0 where none is.
    pub read_to: u64,
}

impl Conversations {
    /// Marks as read up to `up_to`, at most to the newest message, or to that without `up_to`; never backwards. A conversation without
    /// messages stays as it is: v2 would never count its unread messages again (seen).
    ///
    /// Where that changes something, the user's connected devices get a command; its failure is only logged.
    ///
    /// # Errors
    /// Those of reading the channel's history.
    pub async fn read(
        &self,
        user: &Uid,
        channel: &Channel,
        up_to: Option<u64>,
    ) -> Result<ReadState, Error> {
        let _permit = self.admit(user, channel).await?;
        let Some(row) = self.client.conversation(user, channel).await? else {
            self.explain_absence(user, channel).await?;
            return Ok(ReadState::default());
        };
        let target = up_to.map_or(row.last_seq, |seq| seq.min(row.last_seq));
        if target <= row.read_to {
            return Ok(ReadState {
                unread: row.unread,
                read_to: row.read_to,
            });
        }
        let unread = row.last_seq - target;
        self.check_row(user, channel).await?;
        let ended = EndWalk(&self.walks, user);
        match self.client.set_unread(user, channel, unread).await {
            Err(wukongim::Error::Rejected(Rejection::NotFound)) => {
                // Left or deleted since.
                self.explain_absence(user, channel).await?;
                return Ok(ReadState::default());
            }
            set => set?,
        }
        drop(ended);
        let state = ReadState {
            unread,
            read_to: target,
        };
        self.tell_devices(user, channel, state);
        Ok(state)
    }

    /// Hides the conversation until its next message. Returns whether its history up to here is hidden from the user as well (v3).
    ///
    /// # Errors
    /// Those of reading the channel's history; [`Error::NotSupported`] in a v2 cluster with a manager token.
    pub async fn delete(&self, user: &Uid, channel: &Channel) -> Result<bool, Error> {
        let _permit = self.admit(user, channel).await?;
        let client = &self.client;
        let _ended = EndWalk(&self.walks, user);
        match client.generation().await? {
            Generation::V2 => {
                // Everything that such a cluster answers shows a hidden row as well (seen).
                if client.is_token_cluster().await? {
                    return Err(Error::NotSupported);
                }
                if client.conversation(user, channel).await?.is_some() {
                    self.check_row(user, channel).await?;
                    // Else a row younger than a minute would stay (seen).
                    client.set_unread(user, channel, 0).await?;
                    client.delete_conversation(user, channel).await?;
                }
                Ok(false)
            }
            Generation::V3 => match client.delete_conversation(user, channel).await {
                Err(wukongim::Error::Rejected(Rejection::NotFound)) => {
                    self.explain_absence(user, channel).await?;
                    Ok(true)
                }
                deleted => Ok(deleted.map(|()| true)?),
            },
        }
    }

    /// The checks of a history's reader, before anything is sent upstream: on v2 a stranger that clears a group's unread count gets its last
    /// message with the next list (seen).
    async fn admit(&self, user: &Uid, channel: &Channel) -> Result<Permit, Error> {
        let conversation = ConversationKey::of(user, channel);
        let permit = self.channel_limiter.try_acquire(&conversation);
        let permit = permit.ok_or(wukongim::Error::Busy)?;
        self.check_ban(user).await?;
        self.authorization.may_read(user, channel).await?;
        Ok(permit)
    }

    /// On v2 a change makes a row for whoever has none, and v2 does not ask whether that is still a member: a removed one, whose row is
    /// gone, would be shown every later message (seen). So without a row the facts of now decide.
    async fn check_row(&self, user: &Uid, channel: &Channel) -> Result<(), Error> {
        if let Channel::Group(group) = channel
            && self.client.generation().await? == Generation::V2
            && !self.client.has_row(user, group).await?
        {
            self.authorization.may_read_now(user, group).await?;
        }
        Ok(())
    }

    /// v3 has no such conversation of the user: fails where the user may not read the channel, and else it has no messages for the user.
    async fn explain_absence(&self, user: &Uid, channel: &Channel) -> Result<(), Error> {
        let is_v3_group = matches!(channel, Channel::Group(_))
            && self.client.generation().await? == Generation::V3;
        if !is_v3_group {
            return Ok(());
        }
        let page = self
            .client
            .page(user, channel, Window::Newest, 1, MAX_PAGE_BYTES);
        let error = match page.await {
            Ok(_) | Err(wukongim::Error::TooLarge { .. }) => return Ok(()),
            Err(error) => error,
        };
        match self
            .authorization
            .explain_read_refusal(channel, &error)
            .await
        {
            None => Ok(()),
            Some(Denial::Upstream(error)) => Err(error.into()),
            Some(denial) => Err(denial.into()),
        }
    }

    /// Sends the command in a task of its own: on v3 a user's first one takes half a second.
    fn tell_devices(&self, user: &Uid, channel: &Channel, state: ReadState) {
        let param = json!({
            "channelId": channel.id(),
            "channelType": channel.channel_type().number(),
            "readToSeq": state.read_to,
            "unread": state.unread,
        });
        let (client, user) = (Arc::clone(&self.client), user.clone());
        tokio::spawn(inherit_identity(async move {
            if let Err(error) = client.send_command(&user, READ_COMMAND, &param).await {
                tracing::warn!(user.id = %user, %error, "the user's devices were not told what was read");
            }
        }));
    }
}

/// Ends the user's walk when a change is done, whatever its outcome.
struct EndWalk<'a>(&'a Walks, &'a Uid);

impl Drop for EndWalk<'_> {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

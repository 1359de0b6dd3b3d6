//! Whether a user is a member of a group, also where no list is available.

use super::page::Window;
use super::{Client, Error, MemberList, Rejection};
use crate::domain::{Channel, ChannelId, ChannelType, Uid};

/// Limit of a page whose content is not used; exceeding it is an answer as well.
const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

impl Client {
    /// Whether `uid` is a subscriber of the group: by v3's manager port, by v2's whole list, or where neither is available (v3 without its
    /// manager port) by whether the user may read it.
    pub async fn is_subscriber(&self, uid: &Uid, group: &ChannelId) -> Result<bool, Error> {
        if let Some(is_listed) = self.is_listed(uid, group).await? {
            return Ok(is_listed);
        }
        let list = MemberList::Subscribers;
        match self.list(list, ChannelType::Group, group.as_str()).await? {
            Some(all) => Ok(all.iter().any(|member| member == uid.as_str())),
            None => self.may_read_group(uid, group).await,
        }
    }

    /// Whether `uid` is a subscriber of the group, where a single call tells it (v3's manager port).
    pub async fn is_listed(&self, uid: &Uid, group: &ChannelId) -> Result<Option<bool>, Error> {
        match self.manager_of_v3().await? {
            Some(manager) => {
                let listed = manager.is_subscriber(&self.transport, group, uid);
                listed.await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Whether v3 lets `uid` read the group, which only members may.
    pub async fn may_read_group(&self, uid: &Uid, group: &ChannelId) -> Result<bool, Error> {
        let channel = Channel::Group(group.clone());
        match self
            .page(uid, &channel, Window::Newest, 1, MAX_PAGE_BYTES)
            .await
        {
            // A member of an empty group is told that there is no channel (seen on a running server).
            Ok(_) | Err(Error::TooLarge { .. } | Error::Rejected(Rejection::ChannelNotFound)) => {
                Ok(true)
            }
            Err(Error::Rejected(Rejection::MembershipRequired | Rejection::Disbanded)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

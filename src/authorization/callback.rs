//! What may be asked: the names of what people do, as the audit and the application's backend know them.

/// What somebody wants to do; the names are those of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message.
    MessageSend,
    /// Read a history.
    MessageSync,
    /// Create a group.
    ChannelCreate,
    /// Delete a group.
    ChannelDelete,
    /// See a group's record.
    ChannelInfo,
    /// Add subscribers.
    SubscriberAdd,
    /// Remove subscribers, oneself included.
    SubscriberRemove,
    /// Name managers.
    ManagerAdd,
    /// Dismiss managers.
    ManagerRemove,
    /// Hand a group over.
    OwnerTransfer,
}

impl Action {
    /// The name in a question and in the audit.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessageSend => "message.send",
            Self::MessageSync => "message.sync",
            Self::ChannelCreate => "channel.create",
            Self::ChannelDelete => "channel.delete",
            Self::ChannelInfo => "channel.info",
            Self::SubscriberAdd => "subscriber.add",
            Self::SubscriberRemove => "subscriber.remove",
            Self::ManagerAdd => "manager.add",
            Self::ManagerRemove => "manager.remove",
            Self::OwnerTransfer => "owner.transfer",
        }
    }
}

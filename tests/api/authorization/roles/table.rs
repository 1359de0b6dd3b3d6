//! The one table of who may do what: the tests beside it run every cell, and docs/AUTHORIZATION.md shows it. Written from the
//! contract, not from what the code does.

use Action::{
    Add, AddFirstManager, AddManager, Adopt, Batch, Create, Delete, DismissManager, DismissNone,
    Info, Leave, RemoveManager, RemoveMember, RemoveOwner, RevokeAnothers, RevokeOwn, Send, Sync,
    Transfer,
};
use dev_upstream::Dialect;

/// The roles, in the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Owner,
    Manager,
    Member,
    NonMember,
    Removed,
    Admin,
}

impl Role {
    pub const ALL: [Self; 6] = [
        Self::Owner,
        Self::Manager,
        Self::Member,
        Self::NonMember,
        Self::Removed,
        Self::Admin,
    ];

    pub fn uid(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Manager => "manager",
            Self::Member => "member",
            Self::NonMember => "non-member",
            Self::Removed => "removed",
            Self::Admin => "root",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Removed => "removed member",
            Self::Admin => "admin",
            role => role.uid(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Send,
    Batch,
    Sync,
    Create,
    Delete,
    Info,
    Add,
    RemoveMember,
    RemoveManager,
    RemoveOwner,
    Leave,
    AddManager,
    DismissManager,
    Transfer,
    Adopt,
    AddFirstManager,
    DismissNone,
    RevokeOwn,
    RevokeAnothers,
}

impl Action {
    /// Whether it is about a group that WuKongIM has and the store has not.
    pub fn is_on_group_without_owner(self) -> bool {
        matches!(self, Adopt | AddFirstManager | DismissNone)
    }

    pub fn title(self) -> &'static str {
        match self {
            Send => "`message.send`",
            Batch => "`message.send`, in a batch",
            Sync => "`message.sync`",
            Create => "`channel.create`, of this id",
            Delete => "`channel.delete`",
            Info => "`channel.info`",
            Add => "`subscriber.add`",
            RemoveMember => "`subscriber.remove`, of a member",
            RemoveManager => "`subscriber.remove`, of another manager",
            RemoveOwner => "`subscriber.remove`, of the owner",
            Leave => "`subscriber.remove`, of oneself",
            AddManager => "`manager.add`",
            DismissManager => "`manager.remove`",
            Transfer => "`owner.transfer`",
            Adopt => "`owner.transfer`, of a group without an owner",
            AddFirstManager => "`manager.add`, in a group without an owner",
            DismissNone => "`manager.remove`, in a group without an owner",
            RevokeOwn => "`token.revoke`, one's own",
            RevokeAnothers => "`token.revoke`, another's",
        }
    }
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decider {
    Members,
    Open,
    BackendAllows,
    BackendDenies,
}

impl Decider {
    pub fn title(self) -> &'static str {
        match self {
            Self::Members => "`members`",
            Self::Open => "`open`",
            Self::BackendAllows => "`callback`, and the backend permits",
            Self::BackendDenies => "`callback`, and the backend refuses",
        }
    }
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// With this code.
    Refused(&'static str),
    /// Done on v2; refused by v3 itself, which is mapped to this code.
    RefusedByV3(&'static str),
    /// Nobody can be that there.
    Nobody,
}

impl Outcome {
    /// The expected code on this dialect, or `ok`.
    pub fn told(self, dialect: Dialect) -> Option<&'static str> {
        match self {
            Self::Done => Some("ok"),
            Self::Refused(code) => Some(code),
            Self::RefusedByV3(code) => Some(if dialect == Dialect::V3 { code } else { "ok" }),
            Self::Nobody => None,
        }
    }
}

type Row = (Action, [Outcome; 6]);

const OK: Outcome = Outcome::Done;
const OUT: Outcome = Outcome::Refused("not_a_member");
const ROLE: Outcome = Outcome::Refused("not_owner");
const NO: Outcome = Outcome::Refused("forbidden");
const HAS: Outcome = Outcome::Refused("channel_exists");
const STAY: Outcome = Outcome::Refused("owner_cannot_leave");
const V2: Outcome = Outcome::RefusedByV3("not_a_member");
const NA: Outcome = Outcome::Nobody;

/// Where nobody's role counts; columns as in [`TABLE`].
const EVERYBODY: [Row; 19] = [
    (Send, [OK, OK, OK, V2, V2, V2]),
    (Batch, [OK, OK, OK, V2, V2, V2]),
    (Sync, [OK, OK, OK, V2, V2, V2]),
    (Create, [OK, HAS, HAS, HAS, HAS, HAS]),
    (Delete, [OK, OK, OK, OK, OK, OK]),
    (Info, [OK, OK, OK, OK, OK, OK]),
    (Add, [OK, OK, OK, OK, OK, OK]),
    (RemoveMember, [OK, OK, OK, OK, OK, OK]),
    (RemoveManager, [OK, OK, OK, OK, OK, OK]),
    (RemoveOwner, [STAY, STAY, STAY, STAY, STAY, STAY]),
    (Leave, [STAY, OK, OK, OK, OK, OK]),
    (AddManager, [OK, OK, OK, OK, OK, OK]),
    (DismissManager, [OK, OK, OK, OK, OK, OK]),
    (Transfer, [OK, OK, OK, OK, OK, OK]),
    (Adopt, [NA, NA, OK, OK, OK, OK]),
    (AddFirstManager, [NA, NA, OK, OK, OK, OK]),
    (DismissNone, [NA, NA, OK, OK, OK, OK]),
    (RevokeOwn, [OK, OK, OK, OK, OK, OK]),
    (RevokeAnothers, [NO, NO, NO, NO, NO, OK]),
];

/// Columns: owner, manager, member, non-member, removed member, admin (not a subscriber).
pub const TABLE: [(Decider, [Row; 19]); 4] = [
    (
        Decider::Members,
        [
            (Send, [OK, OK, OK, OUT, OUT, OUT]),
            (Batch, [OK, OK, OK, OUT, OUT, OUT]),
            (Sync, [OK, OK, OK, OUT, OUT, OUT]),
            (Create, [OK, HAS, HAS, HAS, HAS, HAS]),
            (Delete, [OK, ROLE, ROLE, ROLE, ROLE, OK]),
            (Info, [OK, OK, OK, OUT, OUT, OK]),
            (Add, [OK, OK, ROLE, ROLE, ROLE, OK]),
            (RemoveMember, [OK, OK, ROLE, ROLE, ROLE, OK]),
            (RemoveManager, [OK, ROLE, ROLE, ROLE, ROLE, OK]),
            (RemoveOwner, [STAY, STAY, ROLE, ROLE, ROLE, STAY]),
            (Leave, [STAY, OK, OK, OK, OK, OK]),
            (AddManager, [OK, ROLE, ROLE, ROLE, ROLE, OK]),
            (DismissManager, [OK, ROLE, ROLE, ROLE, ROLE, OK]),
            (Transfer, [OK, ROLE, ROLE, ROLE, ROLE, OK]),
            (Adopt, [NA, NA, ROLE, ROLE, ROLE, OK]),
            (AddFirstManager, [NA, NA, ROLE, ROLE, ROLE, OK]),
            (DismissNone, [NA, NA, ROLE, ROLE, ROLE, OK]),
            (RevokeOwn, [OK, OK, OK, OK, OK, OK]),
            (RevokeAnothers, [NO, NO, NO, NO, NO, OK]),
        ],
    ),
    (Decider::Open, EVERYBODY),
    (Decider::BackendAllows, EVERYBODY),
    (
        Decider::BackendDenies,
        [
            (Send, [NO, NO, NO, NO, NO, NO]),
            (Batch, [NO, NO, NO, NO, NO, NO]),
            (Sync, [NO, NO, NO, NO, NO, NO]),
            (Create, [NO, NO, NO, NO, NO, NO]),
            (Delete, [NO, NO, NO, NO, NO, NO]),
            (Info, [NO, NO, NO, NO, NO, NO]),
            (Add, [NO, NO, NO, NO, NO, NO]),
            (RemoveMember, [NO, NO, NO, NO, NO, NO]),
            (RemoveManager, [NO, NO, NO, NO, NO, NO]),
            (RemoveOwner, [NO, NO, NO, NO, NO, NO]),
            (Leave, [NO, NO, NO, NO, NO, NO]),
            (AddManager, [NO, NO, NO, NO, NO, NO]),
            (DismissManager, [NO, NO, NO, NO, NO, NO]),
            (Transfer, [NO, NO, NO, NO, NO, NO]),
            (Adopt, [NA, NA, NO, NO, NO, NO]),
            (AddFirstManager, [NA, NA, NO, NO, NO, NO]),
            (DismissNone, [NA, NA, NO, NO, NO, NO]),
            (RevokeOwn, [OK, OK, OK, OK, OK, OK]),
            (RevokeAnothers, [NO, NO, NO, NO, NO, OK]),
        ],
    ),
];

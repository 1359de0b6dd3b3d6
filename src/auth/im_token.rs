//! WuKongIM's connect tokens: derived from a secret and the revocation count, so that every replica issues the same token and it cannot be
//! guessed. They are registered with WuKongIM, and revoked there.

mod maker;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::Serialize;

use maker::TokenDeriver;
pub(super) use maker::secret_key;

use crate::config::{self, DeviceLevel, DeviceLevels};
use crate::context;
use crate::domain::{ChannelId, ChannelType, Uid, caps};
use crate::limits::keyed_locks::KeyedLocks;
use crate::store::{Store, StoreError};
use crate::wukongim::{self, Client, Reason, Record};

/// The kind of device a connect token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceFlag {
    /// A phone app.
    App = 0,
    /// A browser.
    Web = 1,
    /// A desktop program.
    Pc = 2,
}

impl DeviceFlag {
    /// All device flags.
    pub const ALL: [Self; 3] = [Self::App, Self::Web, Self::Pc];

    /// The flag with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| flag.number() == number)
    }

    /// WuKongIM's number for it.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// A connect token: 43 characters. Neither `Debug` nor any log shows it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ImToken(String);

impl ImToken {
    /// The token itself; only for WuKongIM and its user.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ImToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why a connect token was not issued or not revoked.
#[derive(Debug, thiserror::Error)]
pub enum ImTokenError {
    /// The user is banned upstream (v2).
    #[error("the user is banned")]
    Banned,
    /// WuKongIM failed; a retry completes the operation.
    #[error(transparent)]
    Upstream(wukongim::Error),
    /// The store failed; a retry completes the operation.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process is shutting down; a retry completes the operation.
    #[error("interrupted by shutdown")]
    Interrupted,
}

impl From<wukongim::Error> for ImTokenError {
    fn from(error: wukongim::Error) -> Self {
        match error {
            // v2 reports a banned user in the body, with HTTP 200.
            wukongim::Error::Refused(Reason::BANNED) => Self::Banned,
            error => Self::Upstream(error),
        }
    }
}

/// Issues and revokes connect tokens.
///
/// v2 accepts the last token registered for a device, so registering a token while another replica revokes it would make it valid again.
/// Therefore the revocation count is read again after the registration, and an outdated token is revoked in WuKongIM once more. The first
/// read is not cached either: if the second one failed, a token revoked long ago would stay registered. A registration that timed out may
/// still reach WuKongIM, so the count is read once more when it no longer can.
pub struct ImTokens {
    deriver: TokenDeriver,
    levels: DeviceLevels,
    client: Arc<Client>,
    store: Arc<Store>,
    /// Serialises issuing and revoking within this process; other replicas are detected by reading the count again.
    locks: KeyedLocks<(Uid, DeviceFlag)>,
    /// How long a timed-out call may still reach WuKongIM.
    late_window: Duration,
}

impl ImTokens {
    /// `None` where neither `im_token.secret` nor `auth.jwt_secret` is set.
    pub fn new(
        settings: &config::Settings,
        client: Arc<Client>,
        store: Arc<Store>,
    ) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            deriver: TokenDeriver::new(settings)?,
            levels: settings.im_token.level,
            client,
            store,
            locks: KeyedLocks::default(),
            late_window: settings.wukongim.timeout,
        }))
    }

    /// The token of (`uid`, `device`). Registers it with WuKongIM on each call, since WuKongIM may have lost it.
    pub async fn issue(
        self: &Arc<Self>,
        uid: &Uid,
        device: DeviceFlag,
    ) -> Result<ImToken, ImTokenError> {
        let (inner, uid) = (self.clone(), uid.clone());
        // Here and not in the task, so that a client that disconnects while it waits starts nothing.
        let guard = inner.locks.lock(&(uid.clone(), device)).await;
        run_detached(async move {
            let _guard = guard;
            let count = inner.revocation_count(&uid, device).await?;
            inner.register(&uid, device, count).await?;
            let newer = inner.revocation_count(&uid, device).await?;
            let count = if newer == count {
                count
            } else {
                inner.replace_registered(&uid, device, newer).await?
            };
            Ok(inner.deriver.token(&uid, device, count))
        })
        .await
    }

    /// Registers the current token of (`uid`, `device`) with WuKongIM, for a v2 that has lost its data; it may be newer than the one that was
    /// verified.
    pub async fn register_again(
        self: &Arc<Self>,
        uid: &Uid,
        device: DeviceFlag,
    ) -> Result<(), ImTokenError> {
        self.issue(uid, device).await.map(drop)
    }

    /// Checks `token` in constant time: the revocation count of (`uid`, `device`) where it is their current token, else `None`. The count is
    /// read from the store each time.
    pub async fn verify(
        &self,
        uid: &Uid,
        device: DeviceFlag,
        token: &str,
    ) -> Result<Option<u64>, StoreError> {
        let count = self.revocation_count(uid, device).await?;
        let current = self.deriver.token(uid, device, count);
        let is_equal = verify_slices_are_equal(current.as_str().as_bytes(), token.as_bytes());
        Ok(is_equal.is_ok().then_some(count))
    }

    /// Whether the tokens of (`uid`, `device`) have not been revoked since [`Self::verify`] returned `count`. Read from the store each time.
    pub async fn is_current(
        &self,
        uid: &Uid,
        device: DeviceFlag,
        count: u64,
    ) -> Result<bool, StoreError> {
        Ok(self.revocation_count(uid, device).await? == count)
    }

    /// Invalidates the tokens issued so far for these devices, here and in WuKongIM, and ends their connections.
    pub async fn revoke(
        self: &Arc<Self>,
        uid: &Uid,
        devices: &[DeviceFlag],
    ) -> Result<(), ImTokenError> {
        let (inner, uid, mut devices) = (self.clone(), uid.clone(), devices.to_vec());
        // In one order for all callers, who could wait for each other else.
        devices.sort_unstable_by_key(|device| device.number());
        let mut guards = Vec::with_capacity(devices.len());
        for device in &devices {
            guards.push(inner.locks.lock(&(uid.clone(), *device)).await);
        }
        run_detached(async move {
            let _guards = guards;
            let revoked = devices.iter().map(|device| inner.revoke_one(&uid, *device));
            futures_util::future::try_join_all(revoked).await?;
            Ok(())
        })
        .await
    }

    async fn revoke_one(
        self: &Arc<Self>,
        uid: &Uid,
        device: DeviceFlag,
    ) -> Result<(), ImTokenError> {
        let count = self.store.revoke(uid, device.number()).await?;
        match self.replace_registered(uid, device, count).await {
            // A user that WuKongIM refuses a token cannot connect at all, so the old token is invalid.
            Ok(_)
            | Err(ImTokenError::Banned | ImTokenError::Upstream(wukongim::Error::Refused(_))) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces all older tokens by the one of this revocation count, or of a newer one, ends their connections, and returns that count.
    async fn replace_registered(
        self: &Arc<Self>,
        uid: &Uid,
        device: DeviceFlag,
        mut count: u64,
    ) -> Result<u64, ImTokenError> {
        loop {
            // Registered before the connections are ended, so that no connect with the old token succeeds meanwhile, and since v2 ends none
            // for a device without a token. Registered again after, since ending them clears the token (all seen on a running server). The
            // first call's result is ignored, since the old token must be replaced in any case.
            let _ = self.register(uid, device, count).await;
            self.client.quit_device(uid, device.number()).await?;
            self.register(uid, device, count).await?;
            let newer = self.revocation_count(uid, device).await?;
            if newer == count {
                return Ok(count);
            }
            count = newer;
        }
    }

    /// Registers the token with this count. Where v2 refuses the user because of another channel's record, a deleted group's record is
    /// replaced by the user's own; any other is logged for the operators.
    async fn register(
        self: &Arc<Self>,
        uid: &Uid,
        device: DeviceFlag,
        count: u64,
    ) -> Result<(), ImTokenError> {
        let error = match self.try_register(uid, device, count).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if matches!(error, wukongim::Error::Timeout | wukongim::Error::Lost) {
            self.recheck_later(uid, device, count);
        }
        let wukongim::Error::Refused(Reason::BANNED | Reason::DISBANDED) = error else {
            return Err(error.into());
        };
        match self.client.user_record(uid).await? {
            Some(record) if record.id != uid.as_str() => {
                if !self.is_deleted_group_record(&record).await? {
                    tracing::error!(
                        user.id = %uid,
                        channel.id = record.id,
                        channel.kind = record.channel_type,
                        "wukongim refuses a user's token for the ban of another channel whose storage key is equal"
                    );
                    return Err(ImTokenError::Upstream(error));
                }
                tracing::warn!(
                    user.id = %uid,
                    channel.id = record.id,
                    "a deleted group's record had the key of a user's token and is replaced by the token"
                );
                self.client.write_user_record(uid).await?;
            }
            Some(record) if record.banned || record.disbanded => return Err(error.into()),
            // Another replica has replaced it already.
            Some(_) | None => {}
        }
        Ok(self.try_register(uid, device, count).await?)
    }

    /// Whether the store has a tombstone for the group of this record. A user whose uid has the key of a live group must not reset its
    /// flags.
    async fn is_deleted_group_record(&self, record: &Record) -> Result<bool, StoreError> {
        if record.channel_type != ChannelType::Group.number() {
            return Ok(false);
        }
        let Ok(group) = ChannelId::parse(&record.id, caps::ID_BYTES) else {
            return Ok(false);
        };
        let group = self.store.channel(&group).await?;
        Ok(group.is_some_and(|group| group.is_deleted()))
    }

    async fn try_register(
        &self,
        uid: &Uid,
        device: DeviceFlag,
        count: u64,
    ) -> Result<(), wukongim::Error> {
        let level = match device {
            DeviceFlag::App => self.levels.app,
            DeviceFlag::Web => self.levels.web,
            DeviceFlag::Pc => self.levels.pc,
        };
        let token = self.deriver.token(uid, device, count);
        let (device, is_master) = (device.number(), level == DeviceLevel::Master);
        self.client
            .register_token(uid, token.as_str(), device, is_master)
            .await
    }

    /// Waits until a registration without an answer can no longer arrive, and replaces the token again if it was revoked since.
    fn recheck_later(self: &Arc<Self>, uid: &Uid, device: DeviceFlag, count: u64) {
        let (inner, uid) = (self.clone(), uid.clone());
        let recheck = async move {
            tokio::time::sleep(inner.late_window).await;
            let replaced = async {
                let _guard = inner.locks.lock(&(uid.clone(), device)).await;
                let newer = inner.revocation_count(&uid, device).await?;
                if newer != count {
                    inner.replace_registered(&uid, device, newer).await?;
                }
                Ok::<_, ImTokenError>(())
            };
            if let Err(error) = Box::pin(replaced).await {
                tracing::warn!(
                    user.id = %uid,
                    %error,
                    "cannot check whether a late registration restored a revoked token"
                );
            }
        };
        tokio::spawn(context::inherit_identity(recheck));
    }

    /// The revocation count from the store, never cached.
    async fn revocation_count(&self, uid: &Uid, device: DeviceFlag) -> Result<u64, StoreError> {
        self.store.revocations(uid, device.number()).await
    }
}

/// Runs `work` in a task that outlives the caller, so that a disconnect leaves no token half revoked.
async fn run_detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ImTokenError>> + Send + 'static,
) -> Result<T, ImTokenError> {
    match tokio::spawn(context::inherit_identity(work)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ImTokenError::Interrupted),
        },
    }
}

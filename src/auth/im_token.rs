//! WuKongIM's own connect tokens: made from a secret and the number of their revocations, so that every replica gives out the same one
//! and nobody can guess it; registered with WuKongIM, and revoked there.

mod maker;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;


use maker::Maker;

use crate::config::{self, DeviceLevel, DeviceLevels};
use crate::domain::{ChannelId, ChannelType, Uid, caps};
use crate::keyed_locks::{KeyGuard, KeyedLocks};
use crate::store::{Store, StoreError};
use crate::wukongim::{self, Client, Reason, Record};

/// The kind of device a connect token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceFlag {
    /// 0: a phone app.
    App,
    /// 1: a browser.
    Web,
    /// 2: a desktop program.
    Pc,
}

impl DeviceFlag {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::App, Self::Web, Self::Pc];

    /// The flag with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::App),
            1 => Some(Self::Web),
            2 => Some(Self::Pc),
            _ => None,
        }
    }

    /// WuKongIM's number of it.
    pub fn number(self) -> u8 {
        match self {
            Self::App => 0,
            Self::Web => 1,
            Self::Pc => 2,
        }
    }
}

/// A connect token: 43 characters. Neither `Debug` nor any log shows it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ImToken(String);

impl ImToken {
    /// The token itself, for WuKongIM and its user alone.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ImToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why there is no connect token, or none was revoked.
#[derive(Debug, thiserror::Error)]
pub enum ImTokenError {
    /// The user is banned upstream (v2).
    #[error("the user is banned")]
    Banned,
    /// WuKongIM failed; repeating the call finishes it.
    #[error(transparent)]
    Upstream(wukongim::Error),
    /// The store failed; repeating the call finishes it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process is ending; repeating the call finishes it.
    #[error("interrupted by shutdown")]
    Interrupted,
}

impl From<wukongim::Error> for ImTokenError {
    fn from(error: wukongim::Error) -> Self {
        match error {
            // v2 tells a banned user in band, with HTTP 200.
            wukongim::Error::Refused(Reason::BANNED) => Self::Banned,
            error => Self::Upstream(error),
        }
    }
}

/// Gives out connect tokens and revokes them.
///
/// v2 takes the last token registered for a device. So one that is registered while another replica revokes it would be good again:
/// the number is read once more afterwards, and what is no longer of this number is revoked in WuKongIM again. The first look goes by
/// no memory either: where the second one fails, nothing takes a token back that was revoked long before. A registration that was given
/// up may still reach WuKongIM: the number is read once more when it can no longer do so.
pub struct ImTokens(Arc<Inner>);

struct Inner {
    maker: Maker,
    levels: DeviceLevels,
    client: Arc<Client>,
    store: Arc<Store>,
    /// Issuing and revoking take turns here; another replica is held off by reading the number again.
    locks: KeyedLocks<(Uid, DeviceFlag)>,
    /// For how long a call that was given up may still reach WuKongIM.
    late: Duration,
}

impl ImTokens {
    /// `None` where neither `im_token.secret` nor `auth.jwt_secret` is set.
    pub fn new(
        settings: &config::Settings,
        client: Arc<Client>,
        store: Arc<Store>,
    ) -> Option<Self> {
        Some(Self(Arc::new(Inner {
            maker: Maker::new(settings)?,
            levels: settings.im_token.level,
            client,
            store,
            locks: KeyedLocks::default(),
            late: settings.wukongim.timeout,
        })))
    }

    /// The token of (`uid`, `device`), registered with WuKongIM, on each call: WuKongIM may have lost it.
    pub async fn give_out(&self, uid: &Uid, device: DeviceFlag) -> Result<ImToken, ImTokenError> {
        let (inner, uid) = (self.0.clone(), uid.clone());
        run(async move {
            let _guard = inner.lock(&uid, device).await?;
            let number = inner.number(&uid, device).await?;
            inner.register(&uid, device, number).await?;
            let newer = inner.number(&uid, device).await?;
            let number = if newer == number {
                number
            } else {
                inner.renew(&uid, device, newer).await?
            };
            Ok(inner.maker.token(&uid, device, number))
        })
        .await
    }

    /// Makes the tokens given out so far for these devices worthless, here and in WuKongIM, and ends their connections.
    pub async fn revoke(&self, uid: &Uid, devices: &[DeviceFlag]) -> Result<(), ImTokenError> {
        let (inner, uid, devices) = (self.0.clone(), uid.clone(), devices.to_vec());
        run(async move {
            let revoked = devices.iter().map(|device| inner.revoke(&uid, *device));
            futures_util::future::try_join_all(revoked).await?;
            Ok(())
        })
        .await
    }
}

impl Inner {
    async fn lock(
        &self,
        uid: &Uid,
        device: DeviceFlag,
    ) -> Result<KeyGuard<(Uid, DeviceFlag)>, ImTokenError> {
        let guard = self.locks.lock(&(uid.clone(), device)).await;
        guard.ok_or(ImTokenError::Upstream(wukongim::Error::Busy))
    }

    async fn revoke(self: &Arc<Self>, uid: &Uid, device: DeviceFlag) -> Result<(), ImTokenError> {
        let _guard = self.lock(uid, device).await?;
        let number = self.store.revoke(uid, device.number()).await?;
        match self.renew(uid, device, number).await {
            // Whom WuKongIM gives no token is let in with none: the old one is gone.
            Ok(_)
            | Err(ImTokenError::Banned | ImTokenError::Upstream(wukongim::Error::Refused(_))) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Puts the token of this number, or of a newer one, in the place of all before it, and ends their connections. That number.
    async fn renew(
        self: &Arc<Self>,
        uid: &Uid,
        device: DeviceFlag,
        mut number: u64,
    ) -> Result<u64, ImTokenError> {
        loop {
            // Before: so that no connect with the old token is still on its way when the connections are ended, and because v2 ends
            // none of a device without a token. After: since ending them has emptied it (all seen on a running server). What the
            // first one comes to decides nothing: the old token must go in any case.
            let _ = self.register(uid, device, number).await;
            self.client.quit_device(uid, device.number()).await?;
            self.register(uid, device, number).await?;
            let newer = self.number(uid, device).await?;
            if newer == number {
                return Ok(number);
            }
            number = newer;
        }
    }

    /// Registers the token of this number. Where v2 refuses the user for a record that is not his: a deleted group's is
    /// replaced by his own, any other is told to the operators.
    async fn register(
        self: &Arc<Self>,
        uid: &Uid,
        device: DeviceFlag,
        number: u64,
    ) -> Result<(), ImTokenError> {
        let error = match self.try_register(uid, device, number).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if matches!(error, wukongim::Error::Timeout | wukongim::Error::Lost) {
            self.look_again_later(uid, device, number);
        }
        let wukongim::Error::Refused(Reason::BANNED | Reason::DISBANDED) = error else {
            return Err(error.into());
        };
        match self.client.user_record(uid).await? {
            Some(record) if record.id != uid.as_str() => {
                if !self.is_of_a_deleted_group(&record).await? {
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
                    "a deleted group's record kept a user out and is replaced by his own"
                );
                self.client.write_user_record(uid).await?;
            }
            Some(record) if record.banned || record.disbanded => return Err(error.into()),
            // Another replica was faster.
            Some(_) | None => {}
        }
        Ok(self.try_register(uid, device, number).await?)
    }

    /// Whether the store has a tombstone for the group in this record. A live group's flags are not to be lifted by whoever has a uid
    /// with its key.
    async fn is_of_a_deleted_group(&self, record: &Record) -> Result<bool, StoreError> {
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
        number: u64,
    ) -> Result<(), wukongim::Error> {
        let level = match device {
            DeviceFlag::App => self.levels.app,
            DeviceFlag::Web => self.levels.web,
            DeviceFlag::Pc => self.levels.pc,
        };
        let token = self.maker.token(uid, device, number);
        let is_master = level == DeviceLevel::Master;
        let registered =
            self.client
                .register_token(uid, token.as_str(), device.number(), is_master);
        registered.await
    }

    /// Once a registration without an answer can no longer reach WuKongIM: where the token was revoked since, it is replaced again.
    fn look_again_later(self: &Arc<Self>, uid: &Uid, device: DeviceFlag, number: u64) {
        let (inner, uid) = (self.clone(), uid.clone());
        let look = async move {
            tokio::time::sleep(inner.late).await;
            let replaced = async {
                let _guard = inner.lock(&uid, device).await?;
                let newer = inner.number(&uid, device).await?;
                if newer != number {
                    inner.renew(&uid, device, newer).await?;
                }
                Ok::<_, ImTokenError>(())
            };
            if let Err(error) = Box::pin(replaced).await {
                tracing::warn!(
                    user.id = %uid,
                    %error,
                    "cannot tell whether a late registration brought a revoked token back"
                );
            }
        };
        tokio::spawn(wukongim::begun_by_this_request(look));
    }

    /// How often they were revoked, by the store's own word.
    async fn number(&self, uid: &Uid, device: DeviceFlag) -> Result<u64, StoreError> {
        self.store.revocations(uid, device.number()).await
    }
}

/// Runs `work` in a task that outlives the caller: who hangs up leaves no token half revoked.
async fn run<T: Send + 'static>(
    work: impl Future<Output = Result<T, ImTokenError>> + Send + 'static,
) -> Result<T, ImTokenError> {
    match tokio::spawn(wukongim::begun_by_this_request(work)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ImTokenError::Interrupted),
        },
    }
}

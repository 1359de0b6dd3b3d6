//! v3's manager port, the only interface where v3 reports members, counts and flags. Used where it is configured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::single_flight::SingleFlight;
use super::transport::retry_once;
use super::transport::{Answer, Call, Transport};
use super::v2::encode;
use super::{ChannelState, Error, MemberList};
use crate::domain::{ChannelId, ChannelType, Uid};

/// Uids per page; v3's default is smaller and its maximum larger.
const PAGE_SIZE: usize = 200;

/// Limit of one list in bytes, as for v2's answer: it bounds a server that pages without end.
const MAX_LIST_BYTES: usize = 32 * 1024 * 1024;

/// How long a failed login is reused and a fresh one is not repeated, so that many requests do not cause many logins.
const FAILURE_TTL: Duration = Duration::from_secs(1);

/// The manager port and the gateway's session there.
pub(super) struct Manager {
    account: Arc<Account>,
    session: SingleFlight<Session>,
}

/// The manager port's address and the gateway's account there.
struct Account {
    base: Url,
    username: String,
    password: SecretString,
}

/// A page of a list.
#[derive(Deserialize)]
struct Members {
    items: Option<Vec<Item>>,
    #[serde(default)]
    has_more: bool,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    uid: String,
}

/// The result of a login.
#[derive(Clone)]
struct Session {
    bearer: HeaderValue,
    until: Instant,
}

impl Account {
    fn url(&self, path: &str) -> Result<Url, Error> {
        self.base
            .join(path.trim_start_matches('/'))
            .map_err(|_| Error::Decode("url"))
    }

    async fn log_in(&self, transport: &Transport) -> Result<Session, Error> {
        #[derive(Serialize)]
        struct Login<'a> {
            username: &'a str,
            password: &'a str,
        }
        #[derive(Deserialize)]
        struct LoggedIn {
            access_token: String,
            #[serde(default)]
            expires_in: u64,
        }
        let login = Login {
            username: &self.username,
            password: self.password.expose_secret(),
        };
        let call = Call::post("manager_login", "", &login);
        let answer = transport
            .call_manager(self.url("manager/login")?, call, None)
            .await?;
        match answer.status {
            StatusCode::OK => {}
            // A server error says nothing about the account.
            status if status.is_server_error() => return Err(Error::Status(status.as_u16())),
            _ => return Err(Error::Credentials),
        }
        let LoggedIn {
            access_token,
            expires_in,
        } = answer.json()?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {access_token}"))
            .map_err(|_| Error::Decode(answer.call))?;
        bearer.set_sensitive(true);
        let lifetime = Duration::from_secs((expires_in / 2).clamp(1, 3600));
        Ok(Session {
            bearer,
            until: Instant::now() + lifetime,
        })
    }
}

impl Manager {
    pub(super) fn new(mut base: Url, username: String, password: SecretString) -> Self {
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let account = Account {
            base,
            username,
            password,
        };
        Self {
            account: Arc::new(account),
            session: SingleFlight::new(),
        }
    }

    /// The session of the last login while it is valid. Concurrent callers share one login, and its failure for [`FAILURE_TTL`].
    async fn session(&self, transport: &Arc<Transport>) -> Result<Session, Error> {
        let login = || {
            let (transport, account) = (Arc::clone(transport), Arc::clone(&self.account));
            async move { account.log_in(&transport).await }
        };
        let is_fresh = |outcome: &Result<Session, Error>, age| match outcome {
            Ok(session) => Instant::now() < session.until,
            Err(_) => age < FAILURE_TTL,
        };
        self.session.get(is_fresh, login).await
    }

    /// One authenticated call, repeated once with a new login where the session is refused.
    async fn call(
        &self,
        transport: &Arc<Transport>,
        call: impl Fn() -> Call,
    ) -> Result<Answer, Error> {
        for _ in 0..2 {
            let Session { bearer, .. } = self.session(transport).await?;
            let ask = async || {
                let call = call();
                let url = self.account.url(&call.path)?;
                transport.call_manager(url, call, Some(&bearer)).await
            };
            let answer = if call().method == Method::GET {
                retry_once(ask).await
            } else {
                ask().await
            };
            match answer {
                // A session refused right after its login has not expired: another login would not help.
                Err(Error::Credentials) => self.session.forget_if(|outcome, age| {
                    age >= FAILURE_TTL
                        && outcome
                            .as_ref()
                            .is_ok_and(|session| session.bearer == bearer)
                }),
                other => return other,
            }
        }
        Err(Error::Credentials)
    }

    /// `GET /manager/channels/2/{id}`.
    pub(super) async fn group_state(
        &self,
        transport: &Arc<Transport>,
        group: &ChannelId,
    ) -> Result<ChannelState, Error> {
        #[derive(Deserialize)]
        struct Flags {
            ban: bool,
            disband: bool,
        }
        let path = format!("manager/channels/2/{}", encode(group.as_str()));
        let answer = self
            .call(transport, || Call::get("manager_channel", path.clone()))
            .await?;
        match answer.status {
            StatusCode::OK => {
                let Flags { ban, disband } = answer.json()?;
                Ok(ChannelState {
                    exists: true,
                    occupied: true,
                    banned: ban,
                    disbanded: disband,
                })
            }
            StatusCode::NOT_FOUND if answer.is_json => Ok(ChannelState::default()),
            status => Err(Error::Status(status.as_u16())),
        }
    }

    /// `GET /manager/channels/{type}/{id}/…`: the whole list, page by page; empty for an unknown channel.
    pub(super) async fn list(
        &self,
        transport: &Arc<Transport>,
        list: MemberList,
        channel_type: ChannelType,
        id: &str,
    ) -> Result<Vec<String>, Error> {
        let tail = match list {
            MemberList::Subscribers => "subscribers",
            MemberList::Denylist => "denylist",
            MemberList::Allowlist => "allowlist",
        };
        let base = format!(
            "manager/channels/{}/{}/{tail}?limit={PAGE_SIZE}",
            channel_type.number(),
            encode(id)
        );
        let mut uids = Vec::new();
        let mut bytes = 0;
        let mut cursor = None::<String>;
        loop {
            let path = match &cursor {
                None => base.clone(),
                Some(cursor) => format!("{base}&cursor={}", encode(cursor)),
            };
            let answer = self
                .call(transport, || Call::get("manager_members", path.clone()))
                .await?;
            match answer.status {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND if answer.is_json => return Ok(uids),
                status => return Err(Error::Status(status.as_u16())),
            }
            let page: Members = answer.json()?;
            // Empty pages and uids count as well.
            bytes += PAGE_SIZE;
            for Item { uid } in page.items.unwrap_or_default() {
                bytes += uid.len() + std::mem::size_of::<String>();
                uids.push(uid);
            }
            if bytes > MAX_LIST_BYTES {
                return Err(Error::TooLarge {
                    max_bytes: MAX_LIST_BYTES,
                });
            }
            match page
                .next_cursor
                .filter(|next| page.has_more && !next.is_empty() && Some(next) != cursor.as_ref())
            {
                Some(next) => cursor = Some(next),
                None if page.has_more => return Err(Error::Decode(answer.call)),
                None => return Ok(uids),
            }
        }
    }

    /// `GET /manager/channels/2/{id}/subscribers?uid=…`: whether the user is on the list; an unknown channel's list is empty.
    pub(super) async fn is_subscriber(
        &self,
        transport: &Arc<Transport>,
        group: &ChannelId,
        uid: &Uid,
    ) -> Result<bool, Error> {
        let path = format!(
            "manager/channels/2/{}/subscribers?uid={}",
            encode(group.as_str()),
            encode(uid.as_str())
        );
        let answer = self
            .call(transport, || Call::get("manager_members", path.clone()))
            .await?;
        match answer.status {
            StatusCode::OK => {
                let found = answer.json::<Members>()?.items.unwrap_or_default();
                Ok(found.iter().any(|item| item.uid == uid.as_str()))
            }
            StatusCode::NOT_FOUND if answer.is_json => Ok(false),
            status => Err(Error::Status(status.as_u16())),
        }
    }

    /// `POST /manager/channels/2/{id}/subscribers/add|remove`: how many of `uids` changed.
    pub(super) async fn change_subscribers(
        &self,
        transport: &Arc<Transport>,
        group: &ChannelId,
        uids: &[&str],
        add: bool,
    ) -> Result<u64, Error> {
        #[derive(Serialize)]
        struct Uids<'a> {
            uids: &'a [&'a str],
        }
        #[derive(Deserialize)]
        struct Changed {
            changed_count: u64,
        }
        let verb = if add { "add" } else { "remove" };
        let path = format!(
            "manager/channels/2/{}/subscribers/{verb}",
            encode(group.as_str())
        );
        let body = serde_json::to_vec(&Uids { uids }).unwrap_or_default();
        let answer = self
            .call(transport, || Call {
                name: "manager_change_members",
                method: Method::POST,
                path: path.clone().into(),
                body: Some(body.clone()),
                max_bytes: 64 * 1024,
            })
            .await?;
        match answer.status {
            StatusCode::OK => Ok(answer.json::<Changed>()?.changed_count),
            StatusCode::NOT_FOUND if answer.is_json => {
                Err(Error::Rejected(super::Rejection::NotFound))
            }
            status => Err(Error::Status(status.as_u16())),
        }
    }
}

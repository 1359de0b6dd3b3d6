//! v3's manager port, the only interface where v3 reports members, counts and flags. Used where it is configured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use url::Url;

use super::v2::encode;
use crate::domain::{ChannelId, ChannelType, Uid};
use crate::wukongim::call::{Answer, Call, Transport, as_directory, retry_once};
use crate::wukongim::single_flight::SingleFlight;
use crate::wukongim::{ChannelState, Error, MemberChange, MemberList, Rejection};

/// Uids per page; v3's default is smaller and its maximum larger.
const PAGE_SIZE: usize = 200;

/// Limit of one list in bytes, as for v2's answer: it bounds a server that pages without end.
const MAX_LIST_BYTES: usize = 32 * 1024 * 1024;

/// How long a failed login is reused and a fresh one is not repeated, so that many requests do not cause many logins.
const FAILURE_TTL: Duration = Duration::from_secs(1);

/// The manager port and the gateway's session there.
pub(crate) struct Manager {
    account: Arc<Account>,
    session: SingleFlight<Session>,
}

/// The manager port's address and the gateway's account there.
struct Account {
    transport: Arc<Transport>,
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
    async fn call(&self, call: Call, bearer: Option<&HeaderValue>) -> Result<Answer, Error> {
        let url = self.base.join(call.path.trim_start_matches('/'));
        let url = url.map_err(|_| Error::Decode("url"))?;
        self.transport.call_manager(url, call, bearer).await
    }

    async fn log_in(&self) -> Result<Session, Error> {
        #[derive(Deserialize)]
        struct LoggedIn {
            access_token: String,
            #[serde(default)]
            expires_in: u64,
        }
        let password = self.password.expose_secret();
        let login = json!({"username": &self.username, "password": password});
        let call = Call::post("manager_login", "manager/login", &login);
        let answer = self.call(call, None).await?;
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
    pub(crate) fn new(
        transport: Arc<Transport>,
        base: &Url,
        username: String,
        password: SecretString,
    ) -> Self {
        Self {
            account: Arc::new(Account {
                transport,
                base: as_directory(base),
                username,
                password,
            }),
            session: SingleFlight::new(),
        }
    }

    /// The session of the last login while it is valid. Concurrent callers share one login, and its failure for [`FAILURE_TTL`].
    async fn session(&self) -> Result<Session, Error> {
        let login = || {
            let account = Arc::clone(&self.account);
            async move { account.log_in().await }
        };
        let is_fresh = |outcome: &Result<Session, Error>, age| match outcome {
            Ok(session) => Instant::now() < session.until,
            Err(_) => age < FAILURE_TTL,
        };
        self.session.get(is_fresh, login).await
    }

    /// One authenticated call, repeated once with a new login where the session is refused.
    async fn call(&self, call: Call) -> Result<Answer, Error> {
        for _ in 0..2 {
            let Session { bearer, .. } = self.session().await?;
            let ask = || self.account.call(call.clone(), Some(&bearer));
            let answer = if call.method == Method::GET {
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

    /// A GET; `None` for an unknown channel.
    async fn get<T: DeserializeOwned>(
        &self,
        name: &'static str,
        path: String,
    ) -> Result<Option<T>, Error> {
        found(&self.call(Call::get(name, path)).await?)
    }

    /// `GET /manager/channels/2/{id}`.
    pub(crate) async fn group_state(&self, group: &ChannelId) -> Result<ChannelState, Error> {
        #[derive(Deserialize)]
        struct Flags {
            ban: bool,
            disband: bool,
        }
        let path = format!("manager/channels/2/{}", encode(group.as_str()));
        let flags = self.get("manager_channel", path).await?;
        let state = flags.map(|Flags { ban, disband }| ChannelState {
            exists: true,
            occupied: true,
            banned: ban,
            disbanded: disband,
        });
        Ok(state.unwrap_or_default())
    }

    /// `GET /manager/channels/{type}/{id}/…`: the whole list, page by page; empty for an unknown channel.
    pub(crate) async fn list(
        &self,
        list: MemberList,
        channel_type: ChannelType,
        id: &str,
    ) -> Result<Vec<String>, Error> {
        let base = format!(
            "manager/channels/{}/{}/{}?limit={PAGE_SIZE}",
            channel_type.number(),
            encode(id),
            list.name()
        );
        let (mut uids, mut bytes) = (Vec::new(), 0);
        let mut cursor = String::new();
        loop {
            let path = if cursor.is_empty() {
                base.clone()
            } else {
                format!("{base}&cursor={}", encode(&cursor))
            };
            let page = self.get::<Members>("manager_members", path);
            let Some(page) = page.await? else {
                return Ok(uids);
            };
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
            if !page.has_more {
                return Ok(uids);
            }
            let next = page.next_cursor.unwrap_or_default();
            if next.is_empty() || next == cursor {
                return Err(Error::Decode("manager_members"));
            }
            cursor = next;
        }
    }

    /// `GET /manager/channels/2/{id}/subscribers?uid=…`: whether the user is on the list; an unknown channel's list is empty.
    pub(crate) async fn is_subscriber(&self, group: &ChannelId, uid: &Uid) -> Result<bool, Error> {
        let path = format!(
            "manager/channels/2/{}/subscribers?uid={}",
            encode(group.as_str()),
            encode(uid.as_str())
        );
        let page = self.get::<Members>("manager_members", path);
        let found = page.await?.and_then(|page| page.items).unwrap_or_default();
        Ok(found.iter().any(|item| item.uid == uid.as_str()))
    }

    /// `POST /manager/channels/2/{id}/subscribers/add|remove`: how many of `uids` changed.
    pub(crate) async fn change_subscribers(
        &self,
        group: &ChannelId,
        uids: &[&str],
        change: MemberChange,
    ) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Changed {
            changed_count: u64,
        }
        let verb = match change {
            MemberChange::Add => "add",
            MemberChange::Remove => "remove",
        };
        let group = encode(group.as_str());
        let path = format!("manager/channels/2/{group}/subscribers/{verb}");
        let body = json!({ "uids": uids });
        let call = Call::post("manager_change_members", path, &body);
        match found(&self.call(call).await?)? {
            Some(Changed { changed_count }) => Ok(changed_count),
            None => Err(Error::Rejected(Rejection::NotFound)),
        }
    }
}

/// The data of an answer; `None` for an unknown channel.
fn found<T: DeserializeOwned>(answer: &Answer) -> Result<Option<T>, Error> {
    match answer.status {
        StatusCode::OK => answer.json().map(Some),
        StatusCode::NOT_FOUND if answer.is_json => Ok(None),
        status => Err(Error::Status(status.as_u16())),
    }
}

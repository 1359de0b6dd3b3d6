//! stub until the config room lands
#![allow(missing_docs)]
use secrecy::SecretString;
use std::time::Duration;
pub struct HttpUrl(pub url::Url);
impl HttpUrl {
    pub fn as_url(&self) -> &url::Url {
        &self.0
    }
}
pub enum Version {
    Auto,
    Two,
    Three,
}
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    Stored,
    Accepted,
}
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum DuplicateCheck {
    Memory,
    Upstream,
}
pub struct Wukongim {
    pub api_urls: Vec<HttpUrl>,
    pub version: Version,
    pub manager_token: Option<SecretString>,
    pub manager_url: Option<HttpUrl>,
    pub manager_username: Option<String>,
    pub manager_password: Option<SecretString>,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    pub confirm: Confirm,
    pub confirm_timeout: Duration,
    pub idempotency_window: Duration,
    pub idempotency_entries: usize,
    pub duplicate_check: DuplicateCheck,
}
#[derive(Clone, Copy)]
pub struct Limits {
    pub id_bytes: usize,
    pub client_msg_no_bytes: usize,
    pub payload: usize,
    pub batch: usize,
    pub subscribers: usize,
    pub sync_default: usize,
    pub sync_max: usize,
    pub sync_bytes: usize,
    pub group_members: usize,
}

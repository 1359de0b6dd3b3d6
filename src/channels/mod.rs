//! stub
#![allow(missing_docs)]
use crate::domain::*;
use std::sync::Arc;
pub struct Actor<'a> {
    pub uid: &'a Uid,
    pub is_admin: bool,
}
#[derive(Debug)]
pub enum Error {
    Exists,
    Deleted,
    NotFound,
    NotOwner,
    Full,
    OwnerCannotLeave,
    Upstream(crate::wukongim::Error),
    Store(crate::store::StoreError),
}
pub struct Rules;
impl From<&crate::config::Settings> for Rules {
    fn from(_: &crate::config::Settings) -> Self {
        Self
    }
}
pub struct Channels;
impl Channels {
    pub fn new(
        _: Arc<crate::wukongim::Client>,
        _: Arc<crate::store::Store>,
        _: Arc<crate::authorization::Authorization>,
        _: Rules,
    ) -> Self {
        Self
    }
    pub async fn create(
        &self,
        _: Actor<'_>,
        _: &ChannelId,
        _: Option<String>,
        _: Option<String>,
    ) -> Result<crate::store::ChannelRecord, Error> {
        Err(Error::NotFound)
    }
    pub async fn delete(&self, _: Actor<'_>, _: &ChannelId) -> Result<(), Error> {
        Err(Error::NotFound)
    }
    pub async fn add(&self, _: Actor<'_>, _: &ChannelId, _: &[Uid]) -> Result<u64, Error> {
        Err(Error::NotFound)
    }
    pub async fn remove(&self, _: Actor<'_>, _: &ChannelId, _: &[Uid]) -> Result<u64, Error> {
        Err(Error::NotFound)
    }
}

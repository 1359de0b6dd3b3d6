//! One gateway's part of ownership: `Channels` by itself, with calls in somebody's name and a record of what it told its listeners.

use std::future::ready;
use std::ops::Deref;
use std::sync::Arc;

use dev_upstream::DevUpstream;
use prometheus_client::metrics::counter::Counter;
use wukongim_gateway::channels::{Actor, Channels, Error, Rules};
use wukongim_gateway::config::GroupIds;
use wukongim_gateway::domain::Uid;
use wukongim_gateway::limits::channel_limiter::ChannelLimiter;
use wukongim_gateway::store::{ChannelRecord, Store};
use wukongim_gateway::{telemetry, wukongim};

use super::{G, GROUP_MEMBERS, Recorder, Told, UPSTREAM_TIMEOUT, id, uid, uids};

/// An admin's uid; everybody else is none.
pub(crate) const ADMIN: &str = "root";

pub(crate) fn user(uid: &Uid) -> Actor<'_> {
    Actor {
        uid,
        is_admin: uid.as_str() == ADMIN,
    }
}

/// One gateway's share of ownership, with calls in somebody's name, about [`G`] where no other group is named.
#[derive(Clone)]
pub(crate) struct Gateway(pub(crate) Arc<Channels>);

impl Deref for Gateway {
    type Target = Channels;

    fn deref(&self) -> &Channels {
        &self.0
    }
}

impl Gateway {
    pub(crate) async fn create(&self, who: &str) -> Result<ChannelRecord, Error> {
        self.create_of(who, G).await
    }

    pub(crate) async fn create_of(&self, who: &str, group: &str) -> Result<ChannelRecord, Error> {
        let (who, group) = (uid(who), id(group));
        self.0.create(user(&who), Some(group), None, None).await
    }

    pub(crate) async fn create_named(
        &self,
        who: &str,
        name: Option<&str>,
        avatar: Option<&str>,
    ) -> Result<ChannelRecord, Error> {
        let who = uid(who);
        let (name, avatar) = (name.map(Into::into), avatar.map(Into::into));
        self.0.create(user(&who), Some(id(G)), name, avatar).await
    }

    pub(crate) async fn delete(&self, who: &str) -> Result<(), Error> {
        self.delete_of(who, G).await
    }

    pub(crate) async fn delete_of(&self, who: &str, group: &str) -> Result<(), Error> {
        self.0.delete(user(&uid(who)), &id(group)).await
    }

    pub(crate) async fn add(&self, who: &str, whom: &[&str]) -> Result<u64, Error> {
        self.0.add(user(&uid(who)), &id(G), &uids(whom)).await
    }

    pub(crate) async fn remove(&self, who: &str, whom: &[&str]) -> Result<u64, Error> {
        self.0.remove(user(&uid(who)), &id(G), &uids(whom)).await
    }

    pub(crate) async fn name(&self, who: &str, whom: &[&str]) -> Result<u64, Error> {
        let (who, whom) = (uid(who), uids(whom));
        self.0.add_managers(user(&who), &id(G), &whom).await
    }

    pub(crate) async fn dismiss(&self, who: &str, whom: &[&str]) -> Result<u64, Error> {
        let (who, whom) = (uid(who), uids(whom));
        self.0.remove_managers(user(&who), &id(G), &whom).await
    }

    pub(crate) async fn transfer_ownership(
        &self,
        who: &str,
        to: &str,
    ) -> Result<ChannelRecord, Error> {
        let (who, to, group) = (uid(who), uid(to), id(G));
        let done = self
            .0
            .transfer_ownership(user(&who), &group, &to, None, None);
        done.await
    }
}

pub(super) const RULES: Rules = Rules {
    group_members: GROUP_MEMBERS,
    open: false,
    callback: None,
    members_may_invite: false,
    group_ids: GroupIds::Any,
};

pub(super) fn gateway(
    client: &Arc<wukongim::Client>,
    store: &Arc<Store>,
    listener: &Arc<Recorder>,
    rules: Rules,
) -> Gateway {
    let (changes, outsiders) = (listener.clone(), listener.clone());
    let channels = Channels::new(
        client.clone(),
        store.clone(),
        ChannelLimiter::new(Counter::default()),
        rules,
        Box::new(move |group, is_deleted| {
            let told = if is_deleted {
                Told::Deleted
            } else {
                Told::Changed
            };
            changes.0.lock().push(told(group.to_string()));
        }),
        Box::new(move |uid, _| Box::pin(ready(outsiders.1.lock().contains(&uid)))),
    );
    Gateway(Arc::new(channels))
}

pub(super) fn client(upstream: &DevUpstream) -> wukongim::Client {
    let mut settings = crate::support::served::settings().wukongim;
    settings.api_urls = vec![upstream.url().parse().unwrap()];
    if let Some(url) = upstream.manager_url() {
        settings.manager_url = Some(url.parse().unwrap());
        settings.manager_username = Some("admin".into());
        settings.manager_password = Some("secret".to_owned().into());
    }
    settings.timeout = UPSTREAM_TIMEOUT;
    let metrics = Arc::new(telemetry::Metrics::default());
    wukongim::Client::new(&settings, metrics).unwrap()
}

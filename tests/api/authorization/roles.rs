//! Every cell of the role matrix, for each mode and dialect: the answer, and the resulting state.

mod document;
mod table;

use std::collections::BTreeSet;

use dev_upstream::{Dialect, GROUP};
use serde_json::json;
use table::{Action, Decider, Role, TABLE};
use wukongim_gateway::config::Mode;
use wukongim_gateway::domain::{ChannelId, Uid};
use wukongim_gateway::http::errors::ApiError;
use wukongim_gateway::store::Roles;

use crate::support::actors::payload;
use crate::support::answer::Answer;
use crate::support::backend::{Backend, Reply};
use crate::support::{TestApp, V2, V3, seeds};

/// Runs the cells of this mode and says which of them are not as the table has them.
async fn matrix(dialect: Dialect, decider: Decider) {
    let backend = Backend::start().await;
    let builder = TestApp::builder().upstream(dialect);
    let builder = match decider {
        Decider::Members => builder,
        Decider::Open => builder.config(|settings| settings.authorization.mode = Mode::Open),
        Decider::BackendAllows | Decider::BackendDenies => builder.config(backend.decides()),
    };
    let app = builder.start().await;
    let (_, rows) = TABLE.iter().find(|(of, _)| *of == decider).unwrap();
    let (mut run, mut wrong) = (0, Vec::new());
    for (action, outcomes) in rows {
        for (role, outcome) in Role::ALL.into_iter().zip(outcomes) {
            let Some(expected) = outcome.told(dialect) else {
                continue;
            };
            let cell = Cell {
                app: &app,
                action: *action,
                role,
                group: format!("g{run}"),
            };
            run += 1;
            backend.answers(|_| Reply::allow(true));
            cell.prepare().await;
            let before = cell.state().await;
            backend.answers(move |_| Reply::allow(decider != Decider::BackendDenies));
            let answer = cell.act().await;
            let told = answer.body["code"].as_str().unwrap_or("ok").to_owned();
            if told != expected {
                wrong.push(format!("{action:?} by {role:?}: {told}, not {expected}"));
                continue;
            }
            is_an_envelope(answer, &told);
            let after = cell.state().await;
            let expected = match told.as_str() {
                "ok" => cell.applied_to(before),
                _ => before,
            };
            if after != expected {
                let what = format!("{action:?} by {role:?}, told {told}: {after:?}");
                wrong.push(format!("{what}, not {expected:?}"));
            }
        }
    }
    assert_eq!(run, 19 * 6 - 3 * 2);
    assert!(
        wrong.is_empty(),
        "{dialect:?}, {decider:?}:\n{}",
        wrong.join("\n")
    );
}

/// Asserts the envelope, and the status that belongs to the code.
#[track_caller]
fn is_an_envelope(answer: Answer, told: &str) {
    if let Some(error) = ApiError::ALL.iter().find(|error| error.code() == told) {
        answer.fails(error.status().as_u16(), told);
    } else {
        answer.ok();
    }
}

/// One cell: somebody does something in a group of its own, in which there are also deputy, a second manager, and friend, a second
/// member.
struct Cell<'a> {
    app: &'a TestApp,
    action: Action,
    role: Role,
    group: String,
}

/// All that an action could have changed.
#[derive(Debug, PartialEq)]
struct State {
    owner: Option<String>,
    managers: BTreeSet<String>,
    is_deleted: bool,
    members: BTreeSet<String>,
    messages: usize,
    connections: usize,
}

fn uid(text: &str) -> Uid {
    Uid::parse(text, 128).unwrap()
}

impl Cell<'_> {
    async fn prepare(&self) {
        let (app, group) = (self.app, &*self.group);
        let everybody = ["owner", "manager", "deputy", "member", "friend", "removed"];
        seeds::group(app, group, &everybody);
        seeds::message(app, GROUP, group, "owner", b"before");
        if !self.action.is_on_group_without_owner() {
            let (owner, managers) = (uid("owner"), ["manager", "deputy"].map(uid));
            let id = self.id();
            let roles = Roles {
                owner: Some(&owner),
                managers: &managers,
            };
            let record = app.store.adopt(&id, None, roles, None, None).await;
            record.unwrap().unwrap();
        }
        if self.role == Role::Removed {
            // What he was let do is remembered, unless the removal ends it.
            app.user("removed").sync(GROUP, group, "").await.ok();
        }
        app.admin().remove(group, &["removed"]).await.ok();
        match self.action {
            Action::RevokeOwn => app.state().connect(self.role.uid(), 1),
            Action::RevokeAnothers => app.state().connect(&self.victim(), 1),
            _ => {}
        }
    }

    fn id(&self) -> ChannelId {
        ChannelId::parse(&self.group, 128).unwrap()
    }

    fn victim(&self) -> String {
        format!("victim-{}", self.group)
    }

    async fn act(&self) -> Answer {
        let (app, group, role) = (self.app, &*self.group, self.role);
        let actor = match role {
            Role::Admin => app.admin(),
            role => app.user(role.uid()),
        };
        match self.action {
            Action::Send => actor.send_to_group(group, "x").await,
            Action::Batch => {
                let batch =
                    json!([{"channelId": group, "channelType": 2, "payload": payload("x")}]);
                actor.post("/message/sendbatch", &batch).await
            }
            Action::Sync => actor.sync(GROUP, group, "").await,
            Action::Create => actor.create_group(group).await,
            Action::Delete => actor.delete_group(group).await,
            Action::Info => actor.info(group).await,
            Action::Add => actor.add(group, &["newcomer"]).await,
            Action::RemoveMember => actor.remove(group, &["friend"]).await,
            Action::RemoveManager => actor.remove(group, &["deputy"]).await,
            Action::RemoveOwner => actor.remove(group, &["owner"]).await,
            Action::Leave => actor.remove(group, &[role.uid()]).await,
            Action::AddManager | Action::AddFirstManager => {
                actor.manager("add", group, &["friend"]).await
            }
            Action::DismissManager | Action::DismissNone => {
                actor.manager("remove", group, &["deputy"]).await
            }
            Action::Transfer | Action::Adopt => actor.transfer_ownership(group, "friend").await,
            Action::RevokeOwn => actor.post_nothing("/token/revoke").await,
            Action::RevokeAnothers => {
                let body = json!({"uid": self.victim()});
                actor.post("/token/revoke", &body).await
            }
        }
    }

    async fn state(&self) -> State {
        let record = self.app.store.channel(&self.id()).await.unwrap();
        let upstream = self.app.state();
        let mut state = State {
            owner: None,
            managers: BTreeSet::new(),
            is_deleted: false,
            members: upstream.members(&self.group).into_iter().collect(),
            messages: upstream.messages(GROUP, &self.group).len(),
            connections: upstream.connections(),
        };
        if let Some(record) = record {
            state.is_deleted = record.is_deleted();
            state.owner = record.owner.map(|owner| owner.to_string());
            state.managers = record.managers.iter().map(Uid::to_string).collect();
        }
        state
    }

    /// What the action, done, makes of this.
    fn applied_to(&self, mut state: State) -> State {
        let mut removed = None;
        match self.action {
            Action::Sync | Action::Create | Action::Info | Action::DismissNone => {}
            Action::Send | Action::Batch => state.messages += 1,
            Action::Delete => {
                state.is_deleted = true;
                state.members.clear();
            }
            Action::Add => {
                state.members.insert("newcomer".into());
            }
            Action::RemoveMember => removed = Some("friend"),
            Action::RemoveManager => removed = Some("deputy"),
            Action::RemoveOwner => removed = Some("owner"),
            Action::Leave => removed = Some(self.role.uid()),
            Action::AddManager | Action::AddFirstManager => {
                state.managers.insert("friend".into());
            }
            Action::DismissManager => {
                state.managers.remove("deputy");
            }
            Action::Transfer | Action::Adopt => {
                state.managers.extend(state.owner.replace("friend".into()));
            }
            Action::RevokeOwn | Action::RevokeAnothers => state.connections -= 1,
        }
        if let Some(removed) = removed {
            state.members.remove(removed);
            state.managers.remove(removed);
        }
        state
    }
}

#[tokio::test]
async fn roles_in_mode_members_on_v2() {
    matrix(V2, Decider::Members).await;
}

#[tokio::test]
async fn roles_in_mode_members_on_v3() {
    matrix(V3, Decider::Members).await;
}

#[tokio::test]
async fn roles_in_mode_open_on_v2() {
    matrix(V2, Decider::Open).await;
}

#[tokio::test]
async fn roles_in_mode_open_on_v3() {
    matrix(V3, Decider::Open).await;
}

#[tokio::test]
async fn roles_where_the_backend_allows_on_v2() {
    matrix(V2, Decider::BackendAllows).await;
}

#[tokio::test]
async fn roles_where_the_backend_allows_on_v3() {
    matrix(V3, Decider::BackendAllows).await;
}

#[tokio::test]
async fn roles_where_the_backend_denies_on_v2() {
    matrix(V2, Decider::BackendDenies).await;
}

#[tokio::test]
async fn roles_where_the_backend_denies_on_v3() {
    matrix(V3, Decider::BackendDenies).await;
}

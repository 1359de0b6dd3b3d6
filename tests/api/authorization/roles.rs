//! Every cell of the role matrix in docs/AUTHORIZATION.md, for each mode and dialect: the answer, and the resulting state. The document
//! is written from the contract, not from what the code does.

use std::collections::BTreeSet;

use wukongim_gateway::config::Mode;
use wukongim_gateway::domain::{ChannelId, Uid};
use wukongim_gateway::http::errors::ApiError;
use wukongim_gateway::store::Roles;

use crate::support::prelude::*;

/// Runs the cells of this dialect and says which of them are not as the document has them.
async fn matrix(dialect: Dialect) {
    for (mode, cells) in tables(dialect) {
        println!("{dialect:?}, {mode}");
        let backend = Backend::start().await;
        let builder = TestApp::builder().upstream(dialect);
        let builder = match mode.as_str() {
            "members" => builder,
            "open" => builder.config(|settings| settings.authorization.mode = Mode::Open),
            "callback, and the backend permits" | "callback, and the backend refuses" => {
                builder.config(backend.decides())
            }
            other => panic!("no mode: {other}"),
        };
        let is_refused = mode.ends_with("refuses");
        let app = builder.start().await;
        assert_eq!(cells.len(), 23 * 6 - 3 * 2);
        let mut wrong = Vec::new();
        for (run, [action, role, expected]) in cells.into_iter().enumerate() {
            let cell = Cell {
                app: &app,
                action: &action,
                uid: match &*role {
                    "removed member" => "removed",
                    "admin" => "root",
                    role => role,
                },
                group: format!("g{run}"),
            };
            backend.answers(|_| Reply::allow(true));
            cell.prepare().await;
            let before = cell.state().await;
            backend.answers(move |_| Reply::allow(!is_refused));
            let answer = cell.act().await;
            let told = answer.body["code"].as_str().unwrap_or("ok").to_owned();
            if told != expected {
                wrong.push(format!("{action} by {role}: {told}, not {expected}"));
                continue;
            }
            is_an_envelope(answer, &told);
            let after = cell.state().await;
            let expected = match told.as_str() {
                "ok" => cell.applied_to(before),
                _ => before,
            };
            if after != expected {
                let what = format!("{action} by {role}, told {told}: {after:?}");
                wrong.push(format!("{what}, not {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// The tables of docs/AUTHORIZATION.md: their mode, and of each cell the action, the role and what is told on this dialect, `ok` or a
/// code. Where a role cannot be, there is no cell.
fn tables(dialect: Dialect) -> Vec<(String, Vec<[String; 3]>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/AUTHORIZATION.md");
    let document = std::fs::read_to_string(path).unwrap().replace('`', "");
    let (_, document) = document.split_once("<!-- the role matrix").unwrap();
    let (document, _) = document.split_once("<!-- end of the role matrix").unwrap();
    let table = |text: &str| {
        let row = |line: &str| -> Vec<String> {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        };
        let (mode, rows) = text.split_once('\n').unwrap();
        let mut rows = rows.lines().filter(|line| line.starts_with('|')).map(row);
        let roles = rows.next().unwrap();
        let mut cells = Vec::new();
        // Behind the line that rules off the head.
        for row in rows.skip(1) {
            for (role, told) in roles.iter().zip(&row).skip(1) {
                let told = match told.strip_prefix("v2 ok, v3 ") {
                    Some(code) if dialect == V3 => code,
                    Some(_) => "ok",
                    None if told == "–" => continue,
                    None => told,
                };
                cells.push([&row[0], role, told].map(str::to_owned));
            }
        }
        (mode.to_owned(), cells)
    };
    let tables: Vec<_> = document.split("\n### ").skip(1).map(table).collect();
    assert_eq!(tables.len(), 4);
    tables
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
    /// As the document calls it.
    action: &'a str,
    /// Of who does it.
    uid: &'a str,
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
        if !self.action.ends_with("without an owner") {
            let (owner, managers) = (uid("owner"), ["manager", "deputy"].map(uid));
            let id = self.id();
            let roles = Roles {
                owner: Some(&owner),
                managers: &managers,
            };
            let record = app.store.adopt(&id, None, roles, None, None).await;
            record.unwrap().unwrap();
        }
        if self.uid == "removed" {
            // What he was let do is remembered, unless the removal ends it.
            app.user("removed").sync(GROUP, group, "").await.ok();
        }
        app.admin().remove(group, &["removed"]).await.ok();
        match self.action {
            "token.revoke, one's own" => app.state().connect(self.uid, 1),
            "token.revoke, another's" => app.state().connect(&self.victim(), 1),
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
        let (app, group) = (self.app, &*self.group);
        let actor = match self.uid {
            "root" => app.admin(),
            uid => app.user(uid),
        };
        match self.action {
            "message.send" => actor.send_to_group(group, "x").await,
            "message.send, in a batch" => actor.send_batch(&[message(GROUP, group, "x")]).await,
            "message.sync" => actor.sync(GROUP, group, "").await,
            "conversation.list" => actor.conversations("").await,
            "conversation.read" => actor.read(GROUP, group, None).await,
            "conversation.delete" => actor.hide(GROUP, group).await,
            "channel.create, of this id" => actor.create_group(group).await,
            "channel.delete" => actor.delete_group(group).await,
            "channel.info" => actor.info(group).await,
            "channel.subscribers" => actor.members(group, "").await,
            "subscriber.add" => actor.add(group, &["newcomer"]).await,
            "subscriber.remove, of a member" => actor.remove(group, &["friend"]).await,
            "subscriber.remove, of another manager" => actor.remove(group, &["deputy"]).await,
            "subscriber.remove, of the owner" => actor.remove(group, &["owner"]).await,
            "subscriber.remove, of oneself" => actor.remove(group, &[self.uid]).await,
            "manager.add" | "manager.add, in a group without an owner" => {
                actor.manager("add", group, &["friend"]).await
            }
            "manager.remove" | "manager.remove, in a group without an owner" => {
                actor.manager("remove", group, &["deputy"]).await
            }
            "owner.transfer" | "owner.transfer, of a group without an owner" => {
                actor.transfer_ownership(group, "friend").await
            }
            "token.revoke, one's own" => actor.post_nothing("/token/revoke").await,
            "token.revoke, another's" => {
                let body = json!({"uid": self.victim()});
                actor.post("/token/revoke", &body).await
            }
            other => panic!("no action: {other}"),
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
            "message.sync"
            | "conversation.list"
            | "conversation.read"
            | "conversation.delete"
            | "channel.create, of this id"
            | "channel.info"
            | "channel.subscribers"
            | "manager.remove, in a group without an owner" => {}
            "message.send" | "message.send, in a batch" => state.messages += 1,
            "channel.delete" => {
                state.is_deleted = true;
                state.members.clear();
            }
            "subscriber.add" => {
                state.members.insert("newcomer".into());
            }
            "subscriber.remove, of a member" => removed = Some("friend"),
            "subscriber.remove, of another manager" => removed = Some("deputy"),
            "subscriber.remove, of the owner" => removed = Some("owner"),
            "subscriber.remove, of oneself" => removed = Some(self.uid),
            "manager.add" | "manager.add, in a group without an owner" => {
                state.managers.insert("friend".into());
            }
            "manager.remove" => {
                state.managers.remove("deputy");
            }
            "owner.transfer" | "owner.transfer, of a group without an owner" => {
                state.managers.extend(state.owner.replace("friend".into()));
            }
            "token.revoke, one's own" | "token.revoke, another's" => state.connections -= 1,
            other => panic!("no action: {other}"),
        }
        if let Some(removed) = removed {
            state.members.remove(removed);
            state.managers.remove(removed);
        }
        state
    }
}

#[tokio::test]
async fn every_role_may_what_the_document_says_on_v2() {
    matrix(V2).await;
}

#[tokio::test]
async fn every_role_may_what_the_document_says_on_v3() {
    matrix(V3).await;
}

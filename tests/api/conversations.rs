//! The conversation endpoints: the list, read and delete.

mod changes;
mod list;
mod token_cluster;
mod walks;

use dev_upstream::EPOCH_MS;

use crate::support::prelude::*;

/// The ids of a page's conversations, in order.
#[track_caller]
fn ids(data: &Value) -> Vec<String> {
    let rows = data["conversations"].as_array().expect("conversations");
    let id = |row: &Value| row["channelId"].as_str().expect("an id").to_owned();
    rows.iter().map(id).collect()
}

/// A user's first page as it is now: by a replica that has not walked yet.
async fn now(app: &TestApp, uid: &str) -> Value {
    let replica = app.beside(|_| {}).await;
    replica.user(uid).conversations("").await.ok()
}

/// The row of a conversation on the page.
#[track_caller]
fn row<'a>(data: &'a Value, id: &str) -> &'a Value {
    let rows = data["conversations"].as_array().expect("conversations");
    let row = rows.iter().find(|row| row["channelId"] == id);
    row.unwrap_or_else(|| panic!("no {id}: {data:#}"))
}

/// `unread` and `readToSeq` of a row or of a read's answer.
#[track_caller]
fn read_state(row: &Value) -> (u64, u64) {
    let number = |name: &str| row[name].as_u64().expect("a number");
    (number("unread"), number("readToSeq"))
}

/// Groups `s0`, `s1`, … of alice with a message of bob each; the last one has the newest.
fn spoken(app: &TestApp, count: usize) {
    for n in 0..count {
        let group = format!("s{n}");
        seeds::group(app, &group, &["alice", "bob"]);
        seeds::message(app, GROUP, &group, "bob", b"hi");
    }
}

/// When the message with this id was sent, in Unix milliseconds.
fn time_of(message_id: &Value) -> u64 {
    let id: u64 = message_id.as_str().unwrap().parse().unwrap();
    (id >> 22) + u64::try_from(EPOCH_MS).unwrap()
}

/// All pages with this limit: each one's ids.
async fn pages(who: &Actor<'_>, query: &str) -> Vec<Vec<String>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = who.conversations(&format!("{query}{cursor}")).await;
        let (more, next) = (answer.header("x-has-more"), answer.header("x-next-cursor"));
        let (more, next) = (more.to_owned(), next.to_owned());
        pages.push(ids(&answer.ok()));
        match &*more {
            "true" => assert!(!next.is_empty()),
            other => {
                assert_eq!((other, &*next), ("false", ""));
                return pages;
            }
        }
        assert!(pages.len() < 100, "it never ends");
        cursor = format!("&cursor={next}");
    }
}

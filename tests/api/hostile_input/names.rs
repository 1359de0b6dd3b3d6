//! Properties of ids, numbers and texts: what is over a limit or outside the rules is refused wherever it stands; the rest works.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::Runtime;

use super::{CLIENT_MSG_NOS, IDS, PAYLOADS, fields, names, untouched};
use crate::support::prelude::*;

/// Runs a property over gateways in front of both dialects; the same cases each time.
fn check<T: std::fmt::Debug>(
    values: &impl Strategy<Value = T>,
    property: &impl AsyncFn(&TestApp, &T),
) {
    let runtime = Runtime::new().expect("a runtime");
    for dialect in [V2, V3] {
        let app = runtime.block_on(TestApp::start(dialect));
        let config = Config {
            cases: 20,
            max_shrink_iters: 100,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let result = TestRunner::new_with_rng(config, rng).run(values, |value| {
            runtime.block_on(property(&app, &value));
            Ok(())
        });
        if let Err(error) = result {
            panic!("{dialect:?}: {error}");
        }
    }
}

/// Texts of more than `limit` bytes, in scripts with one to four bytes a character.
fn longer_than(limit: usize) -> impl Strategy<Value = String> {
    let letter = prop_oneof![Just('a'), Just('é'), Just('群'), Just('😀')];
    let excess = prop_oneof![3 => 1_usize..5, 1 => 5_usize..3000];
    (letter, excess).prop_map(move |(letter, excess)| {
        let mut text = String::new();
        while text.len() < limit + excess {
            text.push(letter);
        }
        text
    })
}

const REFUSED: [char; 20] = [
    '@', '#', '&', '/', '\\', '?', '%', ' ', '\t', '\r', '\n', '\0', '\u{1b}', '\u{7f}', '\u{85}',
    '\u{a0}', '\u{2003}', '\u{2028}', '\u{2029}', '\u{3000}',
];

/// Texts that are no id at the default limit.
fn bad_ids() -> impl Strategy<Value = String> {
    let refused = proptest::sample::select(REFUSED.to_vec());
    let with_refused = ("[a-z群é]{0,9}", refused, "[a-z群é]{0,9}")
        .prop_map(|(before, refused, after)| format!("{before}{refused}{after}"));
    prop_oneof![
        3 => longer_than(128),
        4 => with_refused,
        1 => prop_oneof![Just("."), Just(".."), Just("____")].prop_map(str::to_owned),
        1 => "____[a-z]{1,9}",
        1 => "[a-z]{0,9}____cmd",
        1 => "[a-z]{0,9}___vstr",
    ]
}

#[test]
fn what_is_no_id_is_refused_wherever_an_id_stands() {
    check(&bad_ids(), &async |app, id| {
        for field in fields(IDS) {
            field.refuses(app, &json!(id)).await;
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("channelId", id)
            .append_pair("channelType", "2");
        let path = format!("/message/sync?{}", query.finish());
        names(app.user("alice").get(&path).await, &["channelId"]);
        untouched(app);
    });
}

#[test]
fn a_token_for_what_is_no_uid_is_no_token() {
    check(&bad_ids(), &async |app, uid| {
        for claims in [
            json!({"sub": uid, "exp": 4_000_000_000_u64}),
            json!({"userId": uid, "roles": ["admin"], "exp": 4_000_000_000_u64}),
        ] {
            let actor = Actor::with_claims(app, &claims);
            let refused = [
                actor.get("/config").await,
                actor.post_nothing("/token").await,
                actor.sync(GROUP, "g", "").await,
                actor.send_to_person("bob", "x").await,
                actor.create_group("g").await,
            ];
            for answer in refused {
                let answer = answer.fails(401, "token_invalid");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
            }
        }
        untouched(app);
    });
}

/// Texts that are ids: any script, all signs that are not refused, up to the default limit.
fn good_ids() -> impl Strategy<Value = String> {
    let short = "[a-zA-Z0-9群é.:;,+=~!$*(){}<>|^`'\"_-]{1,30}";
    let longest = (0_usize..=125).prop_map(|ascii| {
        let mut text = "a".repeat(ascii);
        while text.len() <= 125 {
            text.push('群');
        }
        text.extend(std::iter::repeat_n('z', 128 - text.len()));
        text
    });
    prop_oneof![3 => short, 1 => longest].prop_filter("is no reserved name", |text| {
        let reserved = text == "." || text == ".." || text.starts_with("____");
        !reserved && !text.ends_with("____cmd") && !text.ends_with("___vstr")
    })
}

#[test]
fn whatever_is_an_id_works_as_uid_and_as_group() {
    check(&(good_ids(), good_ids()), &async |app, (uid, group)| {
        let (user, owner) = (
            app.user(uid),
            app.user("the owner".replace(' ', "-").as_str()),
        );
        // Two cases may draw the same id.
        owner.create_group(group).await.ok();
        owner.add(group, &[uid]).await.ok();
        let sent = user.send_to_group(group, "x").await.ok();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("channelId", group)
            .append_pair("channelType", "2");
        let read = user.get(&format!("/message/sync?{}", query.finish())).await;
        let read = read.ok();
        let last = read
            .as_array()
            .and_then(|list| list.last())
            .expect("a message");
        assert_eq!(last["messageId"], sent["messageId"]);
        assert_eq!(
            (&last["fromUid"], &last["channelId"]),
            (&json!(uid), &json!(group))
        );
        owner.send_to_person(uid, "x").await.ok();
        owner.remove(group, &[uid]).await.ok();
        assert!(!app.upstream.killed());
    });
}

#[test]
fn client_msg_nos_over_the_limit_or_with_control_characters_are_refused() {
    let control =
        proptest::sample::select(vec!['\0', '\n', '\r', '\t', '\u{1b}', '\u{7f}', '\u{9b}']);
    let with_control =
        ("[ -~群]{0,20}", control).prop_map(|(text, control)| format!("{text}{control}x"));
    let bad = prop_oneof![longer_than(128), with_control, Just(String::new())];
    check(&bad, &async |app, number| {
        for field in fields(CLIENT_MSG_NOS) {
            field.refuses(app, &json!(number)).await;
        }
        untouched(app);
    });
}

#[test]
fn client_msg_nos_of_any_other_characters_come_back_byte_for_byte() {
    let good = prop_oneof![
        "[ -~群é😀]{1,30}",
        Just("x".repeat(128)),
        Just("é".repeat(64))
    ];
    check(&good, &async |app, number| {
        let mut body = super::message("clientMsgNo", json!(number));
        body["payload"] = json!(payload("the same"));
        let sent = app.user("alice").post("/message/send", &body).await.ok();
        assert_eq!(sent["clientMsgNo"], **number);
        let read = app.user("bob").sync(1, "alice", "&limit=200").await.ok();
        let read = read.as_array().expect("a list").iter();
        let same = read
            .filter(|message| message["clientMsgNo"] == **number)
            .count();
        assert_eq!(same, 1);
    });
}

#[test]
fn payloads_over_the_limit_are_refused_to_the_byte() {
    use base64::Engine as _;
    let sizes = prop_oneof![3 => 65_537_usize..65_545, 1 => 65_545_usize..500_000];
    check(&sizes, &async |app, size| {
        let text = base64::engine::general_purpose::STANDARD.encode(vec![7_u8; *size]);
        for field in fields(PAYLOADS) {
            field.refuses(app, &json!(text)).await;
        }
        untouched(app);
    });
}

const NAME_AND_AVATAR: &str = r#"
/channel/create name {"channelId":"g","channelType":2,"name":?}
/channel/create avatar {"channelId":"g","channelType":2,"avatar":?}
"#;

#[test]
fn names_and_avatars_over_their_limits_are_refused() {
    let letter = prop_oneof![Just("a"), Just("é"), Just("群"), Just("😀")];
    check(&(letter, 0_usize..300), &async |app, (letter, excess)| {
        let name = letter.repeat(129 + excess);
        let start = "https://example.com/";
        let url = format!("{start}{}", letter.repeat(1025 - start.len() + excess));
        for (field, long) in fields(NAME_AND_AVATAR).zip([name, url]) {
            field.refuses(app, &json!(long)).await;
        }
        untouched(app);
    });
}

#[tokio::test]
async fn names_are_counted_in_characters_and_avatars_are_http_addresses() {
    for app in TestApp::both().await {
        for (letter, start) in [("群", "https://example.com/"), ("a", "https://h/")] {
            let url = format!("{start}{}", letter.repeat(1024 - start.len()));
            let name = if letter == "a" { "群" } else { "😀" }.repeat(128);
            let body = json!({"channelId": letter, "channelType": 2, "name": name, "avatar": url});
            let made = app.user("alice").post("/channel/create", &body).await.ok();
            assert_eq!(made, body);
        }
    }
}

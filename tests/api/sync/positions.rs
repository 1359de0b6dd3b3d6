//! Which messages `lastMessageSeq`, `beforeMessageSeq` and `limit` give, and when more remain.

use crate::support::prelude::*;

/// One past the greatest number there is is refused, this one not.
const GREATEST: &str = "9223372036854775807";

type Row<'a> = (&'a str, std::ops::RangeInclusive<u64>, bool);

/// Ten messages in a group and in a pair, asked for by both members in both dialects.
async fn of_ten(rows: &[Row<'_>]) {
    for app in TestApp::both().await {
        seeds::two_channels(&app, 10);
        let (alice, bob) = (app.user("alice"), app.user("bob"));
        let readers: [(&Actor<'_>, u8, &str); 4] = [
            (&alice, GROUP, "g"),
            (&bob, GROUP, "g"),
            (&alice, PERSON, "bob"),
            (&bob, PERSON, "alice"),
        ];
        for (reader, channel_type, id) in readers {
            for (query, seqs, more) in rows {
                let answer = reader.sync(channel_type, id, query).await;
                let expected: Vec<u64> = seqs.clone().collect();
                assert_eq!(
                    page(answer),
                    (expected, *more),
                    "{channel_type} {id} {query}"
                );
            }
        }
    }
}

#[expect(clippy::reversed_empty_ranges, reason = "an empty page")]
const NONE: std::ops::RangeInclusive<u64> = 1..=0;

#[tokio::test]
async fn the_newest_come_without_last_message_seq_and_with_0_oldest_first() {
    of_ten(&[
        ("", 1..=10, false),
        ("&limit=3", 8..=10, true),
        ("&lastMessageSeq=0&limit=3", 8..=10, true),
        ("&lastMessageSeq=&limit=3", 8..=10, true),
        ("&limit=1", 10..=10, true),
        ("&limit=9", 2..=10, true),
        ("&limit=10", 1..=10, false),
        ("&limit=11", 1..=10, false),
    ])
    .await;
}

#[tokio::test]
async fn those_above_last_message_seq_come_and_more_remain_until_the_last_one() {
    let greatest = format!("&lastMessageSeq={GREATEST}");
    of_ten(&[
        ("&lastMessageSeq=3&limit=3", 4..=6, true),
        ("&lastMessageSeq=6&limit=3", 7..=9, true),
        ("&lastMessageSeq=7&limit=3", 8..=10, false),
        ("&lastMessageSeq=1&limit=9", 2..=10, false),
        ("&lastMessageSeq=1&limit=8", 2..=9, true),
        ("&lastMessageSeq=8&limit=3", 9..=10, false),
        ("&lastMessageSeq=9&limit=1", 10..=10, false),
        ("&lastMessageSeq=10", NONE, false),
        ("&lastMessageSeq=11&limit=1", NONE, false),
        ("&lastMessageSeq=4000000000", NONE, false),
        (&greatest, NONE, false),
    ])
    .await;
}

#[tokio::test]
async fn those_below_before_message_seq_come_and_more_remain_until_the_first_one() {
    let (all, most) = (
        format!("&beforeMessageSeq={GREATEST}&limit=10"),
        format!("&beforeMessageSeq={GREATEST}&limit=9"),
    );
    of_ten(&[
        ("&beforeMessageSeq=1", NONE, false),
        ("&beforeMessageSeq=2", 1..=1, false),
        ("&beforeMessageSeq=2&limit=1", 1..=1, false),
        ("&beforeMessageSeq=3&limit=1", 2..=2, true),
        ("&beforeMessageSeq=4&limit=3", 1..=3, false),
        ("&beforeMessageSeq=4&limit=2", 2..=3, true),
        ("&beforeMessageSeq=5&limit=3", 2..=4, true),
        ("&beforeMessageSeq=10&limit=3", 7..=9, true),
        ("&beforeMessageSeq=11&limit=3", 8..=10, true),
        ("&beforeMessageSeq=12&limit=3", 8..=10, true),
        ("&beforeMessageSeq=13&limit=1", 10..=10, true),
        ("&beforeMessageSeq=4000000000&limit=3", 8..=10, true),
        (&all, 1..=10, false),
        (&most, 2..=10, true),
        ("&beforeMessageSeq=5&lastMessageSeq=0&limit=3", 2..=4, true),
    ])
    .await;
}

#[tokio::test]
async fn both_bounds_at_once_are_refused() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        for bounds in [
            "&lastMessageSeq=3&beforeMessageSeq=9",
            "&beforeMessageSeq=1&lastMessageSeq=1",
        ] {
            let answer = failure(400, "invalid_request").is(alice.sync(GROUP, "g", bounds).await);
            assert_eq!(answer.bad_fields(), ["beforeMessageSeq"]);
        }
        assert!(app.upstream.calls().is_empty());
    }
}

#[tokio::test]
async fn the_limit_is_50_by_default_and_more_than_the_maximum_means_the_maximum() {
    for app in TestApp::both().await {
        seeds::two_channels(&app, 260);
        let alice = app.user("alice");
        let asked = |query: &'static str| async {
            let (seqs, more) = page(alice.sync(GROUP, "g", query).await);
            (*seqs.first().unwrap(), *seqs.last().unwrap(), more)
        };
        assert_eq!(asked("").await, (211, 260, true));
        assert_eq!(asked("&limit=").await, (211, 260, true));
        assert_eq!(asked("&lastMessageSeq=7").await, (8, 57, true));
        assert_eq!(asked("&beforeMessageSeq=90").await, (40, 89, true));
        for limit in [
            "&limit=200",
            "&limit=201",
            "&limit=100000",
            "&limit=9223372036854775807",
            "&limit=9223372036854775808",
        ] {
            assert_eq!(asked(limit).await, (61, 260, true), "{limit}");
        }
        for limit in ["&limit=0", "&limit=-1"] {
            let answer = failure(400, "invalid_request").is(alice.sync(GROUP, "g", limit).await);
            assert_eq!(answer.bad_fields(), ["limit"], "{limit}");
        }
    }
}

#[tokio::test]
async fn a_deployment_sets_default_and_maximum() {
    for dialect in [V2, V3] {
        let app = TestApp::with(dialect, |settings| {
            settings.limits.sync_default = 2;
            settings.limits.sync_max = 3;
        })
        .await;
        seeds::two_channels(&app, 10);
        let alice = app.user("alice");
        assert_eq!(page(alice.sync(GROUP, "g", "").await), (vec![9, 10], true));
        assert_eq!(
            page(alice.sync(GROUP, "g", "&limit=4").await),
            (vec![8, 9, 10], true)
        );
    }
}

#[tokio::test]
async fn a_pair_that_never_spoke_and_a_group_without_messages_are_empty() {
    for app in TestApp::both().await {
        app.group("quiet", "alice", &["bob"]).await;
        let bob = app.user("bob");
        for (channel_type, id) in [(GROUP, "quiet"), (PERSON, "nobody-yet"), (PERSON, "bob")] {
            for bounds in [
                "",
                "&limit=1",
                "&lastMessageSeq=5",
                "&beforeMessageSeq=1",
                "&beforeMessageSeq=9",
            ] {
                let answer = bob.sync(channel_type, id, bounds).await;
                assert_eq!(page(answer), (vec![], false), "{id} {bounds}");
            }
        }
    }
}

#[tokio::test]
async fn a_new_pair_is_found_at_once_although_v3_does_not_know_it_yet() {
    let builder = TestApp::builder()
        .upstream(V3)
        .options(|options| options.membership_after = Duration::from_millis(300));
    let app = builder.start().await;
    app.user("alice").send_to_person("bob", "first").await.ok();
    for (reader, peer) in [("bob", "alice"), ("alice", "bob")] {
        for bounds in ["", "&beforeMessageSeq=9"] {
            let answer = app.user(reader).sync(PERSON, peer, bounds).await;
            assert_eq!(page(answer), (vec![1], false), "{reader} {bounds}");
        }
    }
    let refused = app.calls_to("/channel/messagesync").len();
    assert!(refused > 4, "v3 refused the pair at first: {refused} calls");
}

#[tokio::test]
async fn a_later_member_sees_only_messages_after_joining_on_v3() {
    let app = TestApp::start(V3).await;
    let alice = app.user("alice");
    seeds::group(&app, "g", &["alice"]);
    for _ in 0..6 {
        seeds::message(&app, GROUP, "g", "alice", b"before");
    }
    app.state().join("g", "late");
    let late = app.user("late");
    assert_eq!(
        page(late.sync(GROUP, "g", "").await),
        (vec![], false),
        "nothing came since"
    );
    for _ in 0..4 {
        seeds::message(&app, GROUP, "g", "alice", b"after");
    }
    let rows: [Row<'_>; 9] = [
        ("", 7..=10, false),
        ("&limit=3", 8..=10, true),
        ("&limit=4", 7..=10, false),
        ("&lastMessageSeq=2&limit=2", 7..=8, true),
        ("&lastMessageSeq=8", 9..=10, false),
        ("&beforeMessageSeq=9&limit=2", 7..=8, false),
        ("&beforeMessageSeq=9&limit=1", 8..=8, true),
        ("&beforeMessageSeq=7", NONE, false),
        ("&beforeMessageSeq=3", NONE, false),
    ];
    for (bounds, seqs, more) in rows {
        let expected: Vec<u64> = seqs.collect();
        let answer = late.sync(GROUP, "g", bounds).await;
        assert_eq!(page(answer), (expected, more), "{bounds}");
    }
    assert_eq!(page(alice.sync(GROUP, "g", "").await).0.len(), 10);
}

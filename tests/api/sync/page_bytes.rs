//! Pages that end early because of their size, and the page sizes requested from WuKongIM.

use crate::support::prelude::*;

/// A gateway with this `sync_bytes`, and a group of alice's with messages of these sizes.
async fn app_with(
    dialect: dev_upstream::Dialect,
    sync_bytes: usize,
    sizes: impl IntoIterator<Item = usize>,
) -> TestApp {
    let app = TestApp::with(dialect, move |settings| {
        settings.limits.sync_bytes = sync_bytes;
        // A busy machine needs its time for megabytes.
        settings.wukongim.timeout = Duration::from_secs(25);
        settings.server.request_timeout = Duration::from_secs(25);
    })
    .await;
    seeds::group(&app, "g", &["alice"]);
    for size in sizes {
        seeds::message(&app, GROUP, "g", "alice", &vec![b'x'; size]);
    }
    app
}

#[tokio::test]
async fn a_page_that_would_pass_its_bytes_ends_early_at_the_far_end() {
    for dialect in [V2, V3] {
        let app = app_with(dialect, 1000, [300; 10]).await;
        let alice = app.user("alice");
        for (bounds, seqs, more) in [
            ("", 8..=10, true),
            ("&limit=2", 9..=10, true),
            ("&lastMessageSeq=1", 2..=4, true),
            ("&lastMessageSeq=6", 7..=9, true),
            ("&lastMessageSeq=7", 8..=10, false),
            ("&beforeMessageSeq=8", 5..=7, true),
            ("&beforeMessageSeq=4", 1..=3, false),
            ("&beforeMessageSeq=99", 8..=10, true),
        ] {
            let expected: Vec<u64> = seqs.collect();
            let answer = alice.sync(GROUP, "g", bounds).await;
            assert_eq!(page(answer), (expected, more), "{dialect:?} {bounds}");
        }
    }
}

#[tokio::test]
async fn a_page_may_fill_its_bytes_exactly() {
    for dialect in [V2, V3] {
        let app = app_with(dialect, 900, [300; 3]).await;
        let answer = app.user("alice").sync(GROUP, "g", "").await;
        assert_eq!(page(answer), (vec![1, 2, 3], false), "{dialect:?}");
    }
}

#[tokio::test]
async fn one_message_comes_however_large_it_is() {
    for dialect in [V2, V3] {
        let app = app_with(dialect, 1000, [6000, 10, 6000, 6000]).await;
        let alice = app.user("alice");
        for (bounds, seqs, more) in [
            ("", vec![4], true),
            ("&beforeMessageSeq=4", vec![3], true),
            ("&beforeMessageSeq=3", vec![2], true),
            ("&beforeMessageSeq=2", vec![1], false),
            ("&lastMessageSeq=1", vec![2], true),
            ("&lastMessageSeq=2", vec![3], true),
            ("&lastMessageSeq=3", vec![4], false),
        ] {
            let answer = alice.sync(GROUP, "g", bounds).await;
            assert_eq!(page(answer), (seqs, more), "{dialect:?} {bounds}");
        }
    }
}

#[tokio::test]
async fn messages_larger_than_the_gateway_sends_can_be_read() {
    for dialect in [V2, V3] {
        // As they come in over WuKongIM's own sockets.
        let app = app_with(dialect, 4 * 1024 * 1024, [1_000_000; 6]).await;
        let alice = app.user("alice");
        let newest = alice.sync(GROUP, "g", "").await;
        let payload = newest.body["data"][0]["payload"].as_str().map(str::len);
        assert_eq!(payload, Some(1_333_336), "{dialect:?}");
        assert_eq!(page(newest), (vec![3, 4, 5, 6], true), "{dialect:?}");
        let rest = alice.sync(GROUP, "g", "&beforeMessageSeq=3").await;
        assert_eq!(page(rest), (vec![1, 2], false), "{dialect:?}");
        let upwards = alice.sync(GROUP, "g", "&lastMessageSeq=1").await;
        assert_eq!(page(upwards), (vec![2, 3, 4, 5], true), "{dialect:?}");
    }
}

#[tokio::test]
async fn the_largest_message_of_v2s_sockets_fits_the_smallest_page() {
    for dialect in [V2, V3] {
        let app = app_with(dialect, 1, [1_024_000; 2]).await;
        let answer = app.user("alice").sync(GROUP, "g", "").await;
        assert_eq!(page(answer), (vec![2], true), "{dialect:?}");
    }
}

#[tokio::test]
async fn large_messages_behind_many_small_ones_do_not_break_the_page() {
    for dialect in [V2, V3] {
        let sizes = (0..112).map(|n| if n < 12 { 1_000_000 } else { 20 });
        // The steps grow on the small ones; the large ones then are too much for one upstream answer.
        let app = app_with(dialect, 4 * 1024 * 1024, sizes).await;
        let answer = app.user("alice").sync(GROUP, "g", "&limit=200").await;
        let (seqs, more) = page(answer);
        assert_eq!(seqs, (9..=112).collect::<Vec<u64>>(), "{dialect:?}");
        assert!(more, "{dialect:?}");
        let asked = seeds::asked_for(&app);
        assert!(
            asked.windows(2).any(|two| two[1] < two[0]),
            "one page was too large: {asked:?}"
        );
    }
}

#[tokio::test]
async fn pages_requested_from_wukongim_are_bounded_in_bytes() {
    const KIB: usize = 1024;
    for dialect in [V2, V3] {
        for (payload, sync_bytes, count) in [
            (64 * KIB, 4096 * KIB, 80),
            (512 * KIB, 1024 * KIB, 6),
            (512 * KIB, 600 * KIB, 4),
        ] {
            let app = TestApp::with(dialect, move |settings| {
                settings.limits.sync_bytes = sync_bytes;
                settings.limits.payload = payload;
                settings.wukongim.timeout = Duration::from_secs(25);
                settings.server.request_timeout = Duration::from_secs(25);
            })
            .await;
            seeds::group(&app, "g", &["alice"]);
            for _ in 0..count {
                seeds::message(&app, GROUP, "g", "alice", &vec![b'x'; payload]);
            }
            for bounds in ["", "&lastMessageSeq=1", "&beforeMessageSeq=80"] {
                app.clear_calls();
                let query = format!("&limit=200{bounds}");
                let answer = app.user("alice").sync(GROUP, "g", &query).await;
                let (seqs, more) = page(answer);
                let fitting = (sync_bytes / payload).max(1);
                assert_eq!(seqs.len(), fitting, "{dialect:?} {bounds}");
                assert!(more, "{dialect:?} {bounds}");
                let asked = seeds::asked_for(&app);
                let most = fitting as u64;
                assert!(
                    !asked.is_empty() && asked.iter().all(|limit| *limit <= most),
                    "{asked:?}"
                );
            }
        }
    }
}

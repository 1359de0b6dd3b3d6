//! Properties: paging skips nothing, repeats nothing, and says exactly when it has reached the end.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::Runtime;

use crate::support::prelude::*;

const SYNC_BYTES: usize = 3000;

/// Runs a property over gateways of both dialects: the same cases each time, and no file of failures.
fn check<T: std::fmt::Debug>(
    sync_bytes: usize,
    cases: &impl Strategy<Value = T>,
    dialects: &[Dialect],
    property: &impl AsyncFn(&TestApp, &str, &T),
) {
    let runtime = Runtime::new().expect("a runtime");
    for dialect in dialects {
        let app = runtime.block_on(
            TestApp::builder()
                .upstream(*dialect)
                .config(move |settings| settings.limits.sync_bytes = sync_bytes)
                .start(),
        );
        let config = Config {
            cases: 12,
            max_shrink_iters: 100,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let mut groups = 0..;
        let groups = std::sync::Mutex::new(&mut groups);
        let result = runner.run(cases, |case| {
            // A group of its own for each case.
            let number = groups.lock().unwrap().next().unwrap_or(0_u32);
            runtime.block_on(property(&app, &format!("g{number}"), &case));
            Ok(())
        });
        if let Err(error) = result {
            panic!("{dialect:?}: {error}");
        }
    }
}

/// Pages from the newest message to the oldest that can be seen, which is `first`.
async fn walk_down(app: &TestApp, group: &str, limit: usize, first: u64, last: u64) {
    let alice = app.user("alice");
    let (mut below, mut bounds) = (last + 1, String::new());
    loop {
        let query = format!("&limit={limit}{bounds}");
        let (seqs, more) = page(alice.sync(GROUP, group, &query).await);
        assert!(seqs.len() <= limit, "{query}: {seqs:?}");
        let low = seqs.first().copied().unwrap_or(below);
        let expected: Vec<u64> = (low..below).collect();
        assert_eq!(seqs, expected, "{query}: nothing skipped, nothing repeated");
        assert_eq!(more, low > first, "{query}: {seqs:?}");
        assert!(!seqs.is_empty() || below == first, "{query} gave nothing");
        if !more {
            return;
        }
        below = low;
        bounds = format!("&beforeMessageSeq={below}");
    }
}

/// Pages from `from` (1 or more) to the newest message, which is `last`.
async fn walk_up(app: &TestApp, group: &str, limit: usize, from: u64, last: u64) {
    let alice = app.user("alice");
    let mut above = from;
    loop {
        let query = format!("&limit={limit}&lastMessageSeq={above}");
        let (seqs, more) = page(alice.sync(GROUP, group, &query).await);
        assert!(seqs.len() <= limit, "{query}: {seqs:?}");
        let high = seqs.last().copied().unwrap_or(above);
        let expected: Vec<u64> = (above + 1..=high).collect();
        assert_eq!(seqs, expected, "{query}: nothing skipped, nothing repeated");
        assert_eq!(more, high < last, "{query}: {seqs:?}");
        if !more {
            return;
        }
        assert!(!seqs.is_empty(), "{query} gave nothing");
        above = high;
    }
}

#[test]
fn paging_never_skips_or_repeats_and_reaches_both_ends() {
    let cases = (0_u64..60, 1_usize..25, 1_u64..70);
    check(4 << 20, &cases, &[V2, V3], &async |app, group, case| {
        let (length, limit, from) = *case;
        seeds::group(app, group, &["alice"]);
        for _ in 0..length {
            seeds::message(app, GROUP, group, "bob", b"x");
        }
        walk_down(app, group, limit, 1, length).await;
        walk_up(app, group, limit, from, length).await;
    });
}

#[test]
fn paging_over_messages_of_any_size_never_skips_or_repeats() {
    let sizes = proptest::collection::vec(prop_oneof![1_usize..400, 400_usize..5000], 0..25);
    let cases = (sizes, 1_usize..25, 1_u64..5);
    check(SYNC_BYTES, &cases, &[V2, V3], &async |app, group, case| {
        let (sizes, limit, from) = case;
        seeds::group(app, group, &["alice"]);
        for size in sizes {
            seeds::message(app, GROUP, group, "bob", &vec![b'x'; *size]);
        }
        let length = sizes.len() as u64;
        walk_down(app, group, *limit, 1, length).await;
        walk_up(app, group, *limit, *from, length).await;
    });
}

#[test]
fn paging_back_to_ones_joining_ends_there_on_v3() {
    let cases = (0_u64..20, 0_u64..20, 1_usize..15, 1_usize..900);
    check(SYNC_BYTES, &cases, &[V3], &async |app, group, case| {
        let (before, after, limit, size) = *case;
        seeds::group(app, group, &["bob"]);
        for _ in 0..before {
            seeds::message(app, GROUP, group, "bob", &vec![b'x'; size]);
        }
        app.state().join(group, "alice");
        for _ in 0..after {
            seeds::message(app, GROUP, group, "bob", &vec![b'x'; size]);
        }
        walk_down(app, group, limit, before + 1, before + after).await;
    });
}

#[test]
fn a_message_that_comes_while_one_pages_moves_nothing() {
    let cases = (5_u64..30, 1_usize..10);
    check(4 << 20, &cases, &[V2, V3], &async |app, group, case| {
        let (length, limit) = *case;
        seeds::group(app, group, &["alice"]);
        for _ in 0..length {
            seeds::message(app, GROUP, group, "bob", b"x");
        }
        let alice = app.user("alice");
        let newest = alice.sync(GROUP, group, &format!("&limit={limit}")).await;
        let (seqs, _) = page(newest);
        seeds::message(app, GROUP, group, "bob", b"new");
        let low = seqs[0];
        let query = format!("&limit={limit}&beforeMessageSeq={low}");
        let (below, _) = page(alice.sync(GROUP, group, &query).await);
        assert_eq!(below.last().copied().unwrap_or(0), low - 1);
        let query = format!("&limit={limit}&lastMessageSeq={length}");
        let above = page(alice.sync(GROUP, group, &query).await);
        assert_eq!(above, (vec![length + 1], false));
    });
}

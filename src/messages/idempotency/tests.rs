//! What is kept of a send, for how long, and what is evicted first.

use super::*;
use crate::domain::{Channel, ChannelId, ClientMsgNo, MessageId, Payload, Uid};
use crate::messages::Draft;
use table::USER_QUOTA;

fn store(window: Duration, capacity: usize) -> Arc<IdempotencyStore> {
    IdempotencyStore::new(window, capacity, Arc::new(Metrics::new()))
}

const LONG: Duration = Duration::from_mins(10);

fn claim_key(
    store: &Arc<IdempotencyStore>,
    user: &str,
    client_msg_no: &str,
    payload: &str,
) -> ClaimOutcome {
    let draft = Draft {
        actor: None,
        channel: Channel::Group(ChannelId::parse("g", 9).unwrap()),
        payload: Payload::parse(payload, 99).unwrap(),
        client_msg_no: Some(ClientMsgNo::parse(client_msg_no, 99).unwrap()),
    };
    let user = Uid::parse(user, 99).unwrap();
    store.claim(&SendTask::new(user, draft, Arc::default()))
}

/// A claim whose client_msg_no is new, or whose earlier attempt has an unknown outcome.
#[track_caller]
fn claimed(outcome: ClaimOutcome, is_new: bool) -> Claim {
    match outcome {
        ClaimOutcome::Claimed(claim) if claim.attempt.is_none() == is_new => claim,
        _ => panic!("not claimed"),
    }
}

fn stored(seq: u64) -> Stored {
    Stored {
        id: MessageId(seq),
        seq,
    }
}

/// An attempt that was sent, with an unknown outcome.
fn leave_unknown(store: &Arc<IdempotencyStore>, floor: u64, sent_ms: u64) -> Attempt {
    let mut claim = claimed(claim_key(store, "a", "n", "YQ=="), true);
    claim.mark_sent(Some(floor), sent_ms);
    claim.attempt.unwrap()
}

fn send(store: &Arc<IdempotencyStore>, user: &str, client_msg_no: &str, seq: u64) {
    claimed(claim_key(store, user, client_msg_no, "YQ=="), true).complete(stored(seq));
}

#[test]
fn the_same_client_msg_no_gets_the_first_answer_and_another_payload_a_conflict() {
    let store = store(LONG, 10);
    send(&store, "a", "n", 5);
    assert!(
        matches!(claim_key(&store, "a", "n", "YQ=="), ClaimOutcome::Done(answer) if answer == stored(5))
    );
    assert!(matches!(
        claim_key(&store, "a", "n", "Yg=="),
        ClaimOutcome::Conflict
    ));
    // Another sender's client_msg_no is separate.
    claimed(claim_key(&store, "b", "n", "Yg=="), true);
}

#[test]
fn an_abandoned_claim_leaves_the_attempt() {
    let store = store(LONG, 10);
    // It was never sent.
    drop(claimed(claim_key(&store, "a", "n", "YQ=="), true));
    let first = leave_unknown(&store, 7, 1);
    let mut claim = claimed(claim_key(&store, "a", "n", "YQ=="), false);
    assert_eq!(claim.attempt, Some(first));
    claim.mark_sent(Some(99), 2);
    let second = claim.attempt.unwrap();
    drop(claim);
    let known = claimed(claim_key(&store, "a", "n", "YQ=="), false)
        .attempt
        .unwrap();
    assert_eq!(
        (known.floor, known.sent_ms),
        (Some(7), 1),
        "the first attempt's floor is kept"
    );
    assert!(known.last_sent > first.last_sent && known.last_sent == second.last_sent);
    assert!(matches!(
        claim_key(&store, "a", "n", "Yg=="),
        ClaimOutcome::Conflict
    ));
}

#[test]
fn a_refused_retry_does_not_forget_the_first_attempt() {
    let store = store(LONG, 10);
    let first = leave_unknown(&store, 7, 1);
    for _ in 0..2 {
        let claim = claimed(claim_key(&store, "a", "n", "YQ=="), false);
        assert_eq!(claim.attempt, Some(first));
        claim.release();
    }
}

#[test]
fn a_generated_client_msg_no_is_not_kept() {
    let store = store(LONG, 10);
    let draft = Draft {
        actor: None,
        channel: Channel::Group(ChannelId::parse("g", 9).unwrap()),
        payload: Payload::parse("YQ==", 99).unwrap(),
        client_msg_no: None,
    };
    let task = SendTask::new(Uid::parse("a", 9).unwrap(), draft, Arc::default());
    let mut claim = claimed(store.claim(&task), true);
    claim.mark_sent(None, 1);
    assert_eq!(claim.complete(stored(1)), stored(1));
    assert_eq!(store.len(), 0);
}

#[test]
fn a_search_resumes_at_the_floor_the_last_one_reached() {
    let store = store(LONG, 10);
    leave_unknown(&store, 7, 1);
    for (up_to, expected) in [(500, 7), (300, 500), (900, 500)] {
        let mut claim = claimed(claim_key(&store, "a", "n", "YQ=="), false);
        assert_eq!(claim.attempt.unwrap().floor, Some(expected));
        claim.advance_floor(up_to);
    }
}

#[test]
fn an_entry_ends_with_the_window() {
    let store = store(Duration::ZERO, 10);
    send(&store, "a", "n", 1);
    send(&store, "a", "n", 2);
    assert_eq!(store.len(), 1);
}

#[test]
fn a_full_store_evicts_the_oldest_finished_entry() {
    let store = store(LONG, 3);
    let held = claimed(claim_key(&store, "a", "held", "YQ=="), true);
    send(&store, "a", "1", 1);
    send(&store, "a", "2", 2);
    send(&store, "a", "3", 3);
    assert_eq!(
        (store.len(), store.metrics.idempotency.evicted.get()),
        (3, 1)
    );
    assert!(matches!(
        claim_key(&store, "a", "held", "YQ=="),
        ClaimOutcome::InFlight(_)
    ));
    assert!(matches!(
        claim_key(&store, "a", "3", "YQ=="),
        ClaimOutcome::Done(_)
    ));
    drop(held);
    send(&store, "a", "1", 4);
}

#[test]
fn a_user_over_quota_is_evicted_before_others() {
    let store = store(LONG, 2 * USER_QUOTA);
    for n in 0..USER_QUOTA / 2 {
        send(&store, "calm", &n.to_string(), 1);
    }
    for n in 0..5 * USER_QUOTA {
        send(&store, "loud", &n.to_string(), 1);
    }
    for n in 0..USER_QUOTA / 2 {
        assert!(
            matches!(
                claim_key(&store, "calm", &n.to_string(), "YQ=="),
                ClaimOutcome::Done(_)
            ),
            "{n}"
        );
    }
    assert_eq!(store.len(), 2 * USER_QUOTA);
    assert_eq!(
        store.metrics.idempotency.evicted.get(),
        7 * USER_QUOTA as u64 / 2,
        "each eviction is counted"
    );
}

#[tokio::test]
async fn a_duplicate_waits_for_the_first() {
    let store = store(LONG, 10);
    let claim = claimed(claim_key(&store, "a", "n", "YQ=="), true);
    let awaiting: Vec<_> = (0..3)
        .map(|_| match claim_key(&store, "a", "n", "YQ==") {
            ClaimOutcome::InFlight(in_flight) => tokio::spawn(in_flight.wait()),
            _ => panic!(),
        })
        .collect();
    claim.complete(stored(9));
    for task in awaiting {
        task.await.unwrap();
    }
    assert!(matches!(
        claim_key(&store, "a", "n", "YQ=="),
        ClaimOutcome::Done(_)
    ));
}

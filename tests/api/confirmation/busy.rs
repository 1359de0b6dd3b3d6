//! Channels in which much else is said: a message is found among it, at a bounded price.

use super::{patient, patient_known};
use crate::support::prelude::*;

/// Sends `n-held` as alice; while WuKongIM has stored it and not yet answered, `meanwhile` happens. Gives its seq.
async fn held_send(app: &TestApp, meanwhile: impl AsyncFnOnce()) -> u64 {
    app.each_send("n-held", Fault::HoldAnswer("answer".into()));
    let (alice, body) = (app.user("alice"), numbered(2, "g", "held", "n-held"));
    let send = alice.send(&body);
    let interrupt = async {
        app.faults().wait_held("answer", 1).await;
        // The upstream numbers what is due when it is next read.
        assert!(
            app.stored_in("g")
                .iter()
                .any(|(_, number, _)| number == "n-held")
        );
        meanwhile().await;
        app.faults().release("answer");
    };
    let (answer, ()) = tokio::join!(send, interrupt);
    let sent = answer.ok();
    let own = app
        .stored_in("g")
        .into_iter()
        .find(|(_, number, _)| number == "n-held")
        .unwrap();
    assert_eq!(sent["messageSeq"], own.2);
    own.2
}

#[tokio::test]
async fn a_channel_with_pages_of_history_is_no_matter_on_first_contact() {
    let app = patient().await;
    app.chatter("g", 700);
    let sent = app.user("alice").send_to_group("g", "hi").await.ok();
    assert_eq!(sent["messageSeq"], 701);
    assert!(app.looks() <= 12, "{} looks", app.looks());
}

#[tokio::test]
async fn hundreds_of_messages_between_send_and_poll_hide_nothing() {
    for known_before in [false, true] {
        let app = patient().await;
        app.chatter("g", 200);
        if known_before {
            app.user("alice").send_to_group("g", "known").await.ok();
        }
        app.clear_calls();
        let seq = held_send(&app, async || {
            app.chatter("g", 500);
        })
        .await;
        assert_eq!(seq, 201 + u64::from(known_before));
        assert!(app.looks() <= 16, "{} looks", app.looks());
        let next = app.user("bob").send_to_group("g", "next").await.ok();
        assert_eq!(next["messageSeq"], seq + 501);
    }
}

#[tokio::test]
async fn a_failed_backward_read_is_repeated() {
    let app = patient().await;
    // The first look finds the newest page; the one below it is what fails.
    let fault = Rule::new("/channel/messagesync", Fault::Reset)
        .skip(1)
        .times(1);
    let seq = held_send(&app, async || {
        app.faults().add(fault);
        app.chatter("g", 100);
    })
    .await;
    assert_eq!(
        (seq, app.faults().remaining()),
        (1, 1),
        "the hold alone is left"
    );
}

#[tokio::test]
async fn reading_further_back_may_meet_larger_payloads() {
    let app = patient().await;
    let seq = held_send(&app, async || {
        for size in [64 * 1024, 1] {
            for _ in 0..64 {
                let mut noise = stored("g", "carol", "", "");
                noise.payload = vec![b'x'; size];
                app.state().store_message(noise);
            }
        }
    })
    .await;
    assert_eq!(seq, 1);
}

#[tokio::test]
async fn a_message_passed_by_another_waiters_poll_is_not_lost() {
    let app = patient_known(true).await;
    let seq = held_send(&app, async || {
        // Each of these is confirmed by looks that read over the held one.
        for _ in 0..5 {
            app.user("bob").send_to_group("g", "meanwhile").await.ok();
            app.chatter("g", 40);
        }
    })
    .await;
    assert_eq!(seq, 2);
}

#[tokio::test]
async fn a_late_message_is_found_above_what_came_before_it() {
    let app = patient_known(true).await;
    let late = Fault::StoreLate(Duration::from_millis(150));
    app.each_send("n-late", late);
    let (alice, body) = (app.user("alice"), numbered(2, "g", "hi", "n-late"));
    let noise = async {
        for _ in 0..10 {
            app.chatter("g", 30);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (answer, ()) = tokio::join!(alice.send(&body), noise);
    let sent = answer.ok();
    let stored = app.stored_in("g");
    let mut own = stored.iter();
    let own = own.find(|(_, number, _)| number == "n-late").unwrap();
    assert_eq!(sent["messageSeq"], own.2);
}

#[tokio::test]
async fn a_channel_left_alone_for_a_thousand_messages_is_read_from_its_end() {
    let app = patient_known(true).await;
    for n in 0..2000 {
        let mut old = stored("g", "carol", "", "x");
        // Yesterday's, by their ids.
        old.message_id = Some(2_000_000_000_000_000_000 + n);
        app.state().store_message(old);
    }
    app.clear_calls();
    let sent = app.user("alice").send_to_group("g", "hi").await.ok();
    assert_eq!(sent["messageSeq"], 2002);
    assert!(app.looks() <= 12, "{} looks", app.looks());
}

#[tokio::test]
async fn large_payloads_in_the_channel_hide_nothing() {
    for known_before in [false, true] {
        let app = patient_known(known_before).await;
        let large = |_| {
            let mut large = stored("g", "carol", "", "");
            large.payload = vec![b'x'; 64 * 1024];
            app.state().store_message(large);
        };
        (0..100).for_each(large);
        let sent = app.user("alice").send_to_group("g", "hi").await.ok();
        assert_eq!(sent["messageSeq"], 101 + u64::from(known_before));
        let seq = held_send(&app, async || (0..100).for_each(large)).await;
        assert_eq!(seq, 102 + u64::from(known_before));
    }
}

#[tokio::test]
async fn many_senders_among_much_noise_all_get_their_own_seq() {
    let app = patient().await;
    app.chatter("g", 300);
    let send = async |n: usize| {
        let text = format!("m{n}");
        let sent = app.user("alice").send(&message(2, "g", &text)).await.ok();
        app.chatter("g", 20);
        (
            sent["messageSeq"].as_u64().unwrap(),
            sent["clientMsgNo"].as_str().unwrap().to_owned(),
        )
    };
    let told = join_all((0..30).map(send)).await;
    let stored = app.stored_in("g");
    for (seq, number) in told {
        let index = usize::try_from(seq).unwrap() - 1;
        assert_eq!(stored[index], ("alice".into(), number, seq));
    }
}

//! Which answers are used again, for whom, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{asking, forgetful, send_as, start_with};
use crate::support::prelude::*;

#[tokio::test]
async fn an_answer_serves_its_key_and_no_other() {
    let (backend, app) = asking(V2).await;
    let root = app.admin();
    let alice = app.user("alice");
    // Each asks once, however often it is done.
    for _ in 0..3 {
        alice.send_to_group("g", "x").await.ok();
        alice.send_to_group("owned", "x").await.ok();
        alice.send_to_person("g", "x").await.ok();
        alice.sync(2, "g", "").await.ok();
        alice.info("g").await.ok();
        app.user("bob").send_to_group("g", "x").await.ok();
        send_as(&root, "alice", "g").await.ok();
        send_as(&root, "root", "g").await.ok();
    }
    let key = |question: &serde_json::Value| {
        let text = |name: &str| question[name].as_str().unwrap_or("-").to_owned();
        let words = ["uid", "actor", "action", "channelId"].map(text);
        format!("{} {}", words.join(" "), question["channelType"])
    };
    let keys: Vec<_> = backend.bodies().iter().map(key).collect();
    let expected = [
        "alice - message.send g 2",
        "alice - message.send owned 2",
        "alice - message.send g 1",
        "alice - message.sync g 2",
        "alice - channel.info g 2",
        "bob - message.send g 2",
        "alice root message.send g 2",
        "root - message.send g 2",
    ];
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn an_allow_for_one_never_lets_another_through() {
    let (backend, app) = asking(V2).await;
    backend.answers(|question| {
        let only =
            json!({"uid": "alice", "action": "message.send", "channelId": "g", "channelType": 2});
        Reply::allow(*question == only)
    });
    let alice = app.user("alice");
    for _ in 0..2 {
        alice.send_to_group("g", "x").await.ok();
        failure(403, "forbidden").in_each([
            alice.sync(2, "g", "").await,
            alice.send_to_group("owned", "x").await,
            alice.send_to_person("g", "x").await,
            app.user("bob").send_to_group("g", "x").await,
            send_as(&app.admin(), "alice", "g").await,
            send_as(&app.admin(), "bob", "g").await,
        ]);
    }
}

#[tokio::test]
async fn an_allow_for_one_target_never_lets_another_one_through() {
    let (backend, app) = asking(V2).await;
    backend.answers(|question| Reply::allow(question["targets"] == json!(["carol"])));
    let olga = app.user("olga");
    for _ in 0..2 {
        olga.add("owned", &["carol"]).await.ok();
        failure(403, "forbidden").in_each([
            olga.add("owned", &["dave"]).await,
            olga.add("owned", &["carol", "dave"]).await,
            olga.remove("owned", &["dave"]).await,
        ]);
    }
    // At the same time as well: nobody is told another one's answer.
    let targets: Vec<_> = (0..20)
        .map(|n| if n % 2 == 0 { "carol" } else { "dave" })
        .collect();
    let adding = targets
        .iter()
        .map(async |target| olga.add("owned", &[target]).await.status);
    backend.asked();
    let told = join_all(adding).await;
    assert!(told.chunks(2).all(|pair| pair == [200, 403]), "{told:?}");
    assert_eq!(backend.count(), 20);
    let members = app.state().members("owned");
    assert!(!members.contains(&"dave".to_owned()), "{members:?}");
}

#[tokio::test]
async fn changes_call_the_callback_each_time() {
    let (backend, app) = asking(V2).await;
    for _ in 0..3 {
        app.user("olga").add("owned", &["carol"]).await.ok();
        app.user("olga").remove("owned", &["dave"]).await.ok();
        app.user("olga").create_group("owned").await.ok();
    }
    assert_eq!(backend.count(), 9);
}

#[tokio::test]
async fn without_a_cache_ttl_each_message_calls_the_callback() {
    let backend = Backend::start().await;
    let app = start_with(V2, &backend, forgetful).await;
    for _ in 0..3 {
        app.user("alice").send_to_group("g", "x").await.ok();
    }
    assert_eq!(backend.count(), 3);
}

#[tokio::test]
async fn a_refusal_is_remembered_as_long_as_an_allow() {
    let (backend, app) = asking(V2).await;
    backend.answers(|_| Reply::allow(false));
    for _ in 0..3 {
        failure(403, "forbidden").is(app.user("alice").send_to_group("g", "x").await);
    }
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn many_with_one_question_ask_once() {
    let (backend, app) = asking(V2).await;
    backend.answers(|_| Reply::Held);
    let sends = async {
        let alice = app.user("alice");
        join_all((0..20).map(|_| alice.send_to_group("g", "x"))).await
    };
    let go = async {
        backend.wait_for(1).await;
        // A second question would come by now, or soon; it would be counted below in any case.
        tokio::time::sleep(Duration::from_millis(50)).await;
        backend.let_go(100);
    };
    let (answers, ()) = tokio::join!(sends, go);
    all_ok(answers);
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn at_most_64_questions_are_open_and_the_others_wait() {
    let (backend, app) = asking(V2).await;
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened, highest) = (open.clone(), most.clone());
    backend.answers(move |_| {
        let now = opened.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(now, Ordering::SeqCst);
        Reply::Held
    });
    let reads = join_all((0..100).map(|n| {
        let app = &app;
        async move { app.user(&format!("u{n}")).sync(2, "g", "").await }
    }));
    let go = async {
        backend.wait_for(64).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(most.load(Ordering::SeqCst), 64);
        backend.let_go(100);
    };
    let (answers, ()) = tokio::join!(reads, go);
    all_ok(answers);
    assert_eq!(backend.count(), 100);
}

/// Asserts that `uid` is refused after the backend has changed its mind.
async fn is_out(app: &TestApp, uid: &str) {
    let user = app.user(uid);
    failure(403, "forbidden").is(user.send_to_group("owned", "x").await);
    user.sync(2, "owned", "").await.fails(403, "forbidden");
}

#[tokio::test]
async fn a_change_through_the_gateway_invalidates_cached_answers_about_the_group() {
    let (backend, app) = asking(V2).await;
    let alice = app.user("alice");
    alice.send_to_group("owned", "x").await.ok();
    alice.sync(2, "owned", "").await.ok();
    backend.answers(|question| Reply::allow(question["uid"] == "olga"));
    // Still believed.
    alice.send_to_group("owned", "x").await.ok();
    app.user("olga").remove("owned", &["alice"]).await.ok();
    is_out(&app, "alice").await;
}

#[tokio::test]
async fn a_permission_overtaken_by_a_removal_is_not_used_later() {
    let (backend, app) = asking(V2).await;
    backend.answers(|question| match question["uid"].as_str() {
        Some("alice") => Reply::Held,
        _ => Reply::allow(true),
    });
    let before = async { app.user("alice").sync(2, "owned", "").await };
    let removal = async {
        backend.wait_for(1).await;
        app.user("olga").remove("owned", &["alice"]).await.ok();
        backend.answers(|question| Reply::allow(question["uid"] == "olga"));
        // While the old question is still open, and after it.
        is_out(&app, "alice").await;
        backend.let_go(1);
    };
    let (before, ()) = tokio::join!(before, removal);
    before.ok();
    is_out(&app, "alice").await;
}

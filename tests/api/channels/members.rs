//! `GET /channel/subscribers`: order, pages, who sees it.

use wukongim_gateway::config::{MembersVisible, Mode};

use crate::support::prelude::*;

/// The upstreams that tell who is a member.
async fn tellers(
    change: impl Fn(&mut wukongim_gateway::config::Settings) + Clone + 'static,
) -> [TestApp; 2] {
    let v2 = TestApp::builder().config(change.clone()).start().await;
    let v3 = TestApp::builder()
        .upstream(V3)
        .manager_port()
        .config(change);
    [v2, v3.start().await]
}

/// The uids of a page with the first letter of their roles.
#[track_caller]
fn told(answer: Answer) -> Vec<String> {
    let data = answer.ok();
    let text = |row: &Value| {
        format!(
            "{}-{}",
            &row["role"].as_str().unwrap()[..2],
            row["uid"].as_str().unwrap()
        )
    };
    data.as_array().unwrap().iter().map(text).collect()
}

#[tokio::test]
async fn the_owner_is_first_then_managers_then_by_uid_and_only_who_is_a_subscriber() {
    for app in tellers(|_| {}).await {
        let owner = app.user("m-owner");
        app.group("g", "m-owner", &["z", "b", "a", "y", "c"]).await;
        owner
            .manager("add", "g", &["z", "outsider", "y"])
            .await
            .ok();
        let all = ["ow-m-owner", "ma-y", "ma-z", "me-a", "me-b", "me-c"];
        let answer = app.user("a").members("g", "").await;
        answer.has("x-total-count", "6");
        answer.has("x-has-more", "false");
        answer.has("x-next-cursor", "");
        assert_eq!(told(answer), all);
        for limit in 1..7 {
            let (mut found, mut more) = (Vec::new(), format!("&limit={limit}"));
            loop {
                let answer = app.user("b").members("g", &more).await;
                answer.has("x-total-count", "6");
                let next = answer.header("x-next-cursor").to_owned();
                answer.has("x-has-more", if next.is_empty() { "false" } else { "true" });
                found.extend(told(answer));
                if next.is_empty() {
                    break;
                }
                more = format!("&limit={limit}&cursor={next}");
            }
            assert_eq!(found, all, "{limit}");
        }
        // The gateway's own changes show at once.
        owner.manager("remove", "g", &["z"]).await.ok();
        owner.add("g", &["d"]).await.ok();
        owner.remove("g", &["a"]).await.ok();
        let all = ["ow-m-owner", "ma-y", "me-b", "me-c", "me-d", "me-z"];
        assert_eq!(told(owner.members("g", "").await), all);
        owner.transfer_ownership("g", "b").await.ok();
        assert_eq!(
            told(owner.members("g", "&limit=2").await),
            ["ow-b", "ma-m-owner"]
        );
        owner.delete_group("g").await.fails(403, "not_owner");
        app.user("b").delete_group("g").await.ok();
        owner.members("g", "").await.fails(404, "channel_not_found");
    }
}

#[tokio::test]
async fn a_large_group_is_looked_up_once_and_its_cursor_is_its_own() {
    for app in tellers(|settings| settings.authorization.cache_ttl = Duration::from_hours(1)).await
    {
        for group in ["g", "h"] {
            seeds::group(&app, group, &["alice"]);
            for n in 0..600 {
                app.state().join(group, &format!("u{n:03}"));
            }
        }
        let alice = app.user("alice");
        let answer = alice.members("g", "&limit=9999").await;
        answer.has("x-total-count", "601");
        let cursor = answer.header("x-next-cursor").to_owned();
        let page = told(answer);
        assert_eq!(
            (page.len(), &*page[0], &*page[499]),
            (500, "me-alice", "me-u498")
        );
        let answer = alice.members("g", &format!("&cursor={cursor}")).await;
        assert_eq!(told(answer)[..2], ["me-u499", "me-u500"]);
        let replica = app.beside(|_| {}).await;
        let more = format!("&limit=1&cursor={cursor}");
        let answer = replica.user("u001").members("g", &more).await;
        assert_eq!(told(answer), ["me-u499"]);
        for (group, cursor) in [("h", &*cursor), ("g", &cursor[1..]), ("g", "AAAA")] {
            let answer = alice.members(group, &format!("&cursor={cursor}")).await;
            answer.names(&["cursor"]);
        }
        app.clear_calls();
        alice.members("g", "").await.ok();
        assert!(app.upstream.calls().is_empty(), "cached like membership");
    }
}

#[tokio::test]
async fn who_sees_the_list() {
    // Of the owner, a manager, a member, a stranger and an admin.
    const OK: &str = "ok";
    let members = [OK, OK, OK, "not_a_member", OK];
    let managers = [OK, OK, "forbidden", "not_a_member", OK];
    let of_open = [OK, OK, "forbidden", "forbidden", OK];
    for (mode, visible, expected) in [
        (Mode::Members, MembersVisible::Members, members),
        (Mode::Members, MembersVisible::Managers, managers),
        (Mode::Open, MembersVisible::Members, [OK; 5]),
        (Mode::Open, MembersVisible::Managers, of_open),
        (Mode::Callback, MembersVisible::Managers, [OK; 5]),
    ] {
        let backend = Backend::start().await;
        let url = backend.url.clone();
        for app in tellers(move |settings| {
            settings.authorization.callback_url = Some(url.parse().unwrap());
            settings.authorization.callback_secret = Some("x".repeat(32).into());
            settings.authorization.mode = mode;
            settings.channels.members_visible = visible;
        })
        .await
        {
            app.group("g", "owner", &["manager", "member"]).await;
            app.user("owner")
                .manager("add", "g", &["manager"])
                .await
                .ok();
            let [owner, manager, member, stranger] =
                app.users(["owner", "manager", "member", "stranger"]);
            let actors = [owner, manager, member, stranger, app.admin()];
            for (actor, expected) in actors.iter().zip(expected) {
                let answer = actor.members("g", "").await;
                let told = answer.body["code"].as_str().unwrap_or(OK);
                assert_eq!(told, expected, "{mode:?} {visible:?}: {answer:#?}");
                actor
                    .members("none", "")
                    .await
                    .fails(404, "channel_not_found");
            }
            let asked = backend
                .asked()
                .into_iter()
                .rev()
                .find(|question| question.body["action"] == "channel.subscribers");
            assert_eq!(asked.is_some(), mode == Mode::Callback);
        }
    }
}

#[tokio::test]
async fn a_manager_or_owner_without_a_subscription() {
    for app in tellers(|_| {}).await {
        app.group("g", "owner", &["member"]).await;
        let [owner, manager] = app.users(["owner", "manager"]);
        owner.manager("add", "g", &["manager"]).await.ok();
        // The role is no subscription.
        let answer = manager.members("g", "").await;
        answer.fails(403, "not_a_member");
        owner.add("g", &["manager"]).await.ok();
        let all = ["ow-owner", "ma-manager", "me-member"];
        assert_eq!(told(manager.members("g", "").await), all);
        app.state().leave("g", "owner");
        owner.add("g", &["other"]).await.ok();
        let all = ["ma-manager", "me-member", "me-other"];
        assert_eq!(told(owner.members("g", "").await), all);
    }
}

#[tokio::test]
async fn v3_without_its_manager_port_cannot_list_them() {
    for visible in [MembersVisible::Members, MembersVisible::Managers] {
        let app = TestApp::with(V3, move |settings| {
            settings.channels.members_visible = visible;
        })
        .await;
        app.group("g", "alice", &["bob"]).await;
        let [alice, bob, mallory] = app.users(["alice", "bob", "mallory"]);
        alice
            .members("g", "")
            .await
            .fails(501, "not_supported")
            .says("获取成员列表失败");
        let hidden = visible == MembersVisible::Managers;
        let answer = bob.members("g", "").await;
        if hidden {
            answer.fails(403, "forbidden");
        } else {
            answer.fails(501, "not_supported");
        }
        mallory.members("g", "").await.fails(403, "not_a_member");
        mallory
            .members("none", "")
            .await
            .fails(404, "channel_not_found");
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_looked_up_is_a_failure() {
    for app in tellers(|_| {}).await {
        seeds::group(&app, "g", &["alice"]);
        let path = match app.dialect {
            V2 => "/cluster/channels/g/2/subscribers",
            V3 => "/manager/channels/2/g/subscribers",
        };
        for (fault, status, code) in [
            (Fault::Status(500, "{}".into()), 502, "upstream_error"),
            (Fault::Garbage, 502, "upstream_error"),
            (Fault::Reset, 503, "upstream_unavailable"),
        ] {
            app.always(path, fault);
            let answer = app.user("alice").members("g", "").await;
            answer.fails(status, code).says("获取成员列表失败");
            app.faults().clear();
        }
        app.user("alice").members("g", "").await.ok();
    }
}

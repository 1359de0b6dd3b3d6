//! The query string of a sync.

use super::{names, table, untouched};
use crate::support::{TestApp, V2, seeds};

#[tokio::test]
async fn a_sync_without_channel_says_so_in_the_references_words() {
    const TEXT: &str = "channelId and channelType are required";
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    for language in ["", "zh-CN", "en", "en-US,en;q=0.9", "fr"] {
        for (query, fields) in [
            ("", &["channelId", "channelType"][..]),
            ("?", &["channelId", "channelType"]),
            ("?channelId=bob", &["channelType"]),
            ("?channelType=1", &["channelId"]),
            ("?channelId=&channelType=", &["channelId", "channelType"]),
            (
                "?channelid=bob&channel_type=1",
                &["channelId", "channelType"],
            ),
            ("?channelType=1&limit=0", &["channelId", "limit"]),
        ] {
            let path = format!("/message/sync{query}");
            let request = alice
                .request("GET", &path)
                .header("accept-language", language);
            let answer = crate::support::answer::Answer::to(request).await;
            assert_eq!(answer.body["message"], TEXT, "{language} {query}");
            names(answer, fields);
        }
    }
    // What is there and wrong is another matter.
    let answer = alice
        .get("/message/sync?channelId=a%20b&channelType=1")
        .await;
    assert_ne!(answer.body["message"], TEXT);
    names(answer, &["channelId"]);
    untouched(&app);
}

/// A row of tests/tables/refused_queries.jsonl, from which the seeds of fuzz/ are made, too.
#[derive(serde::Deserialize)]
struct Row {
    query: String,
    fields: Vec<String>,
}

#[tokio::test]
async fn bad_parameters_are_refused_by_name() {
    let app = TestApp::start(V2).await;
    let alice = app.user("alice");
    for row in table::<Row>("refused_queries") {
        let answer = alice.get(&format!("/message/sync?{}", row.query)).await;
        assert_eq!(answer.status, 400, "{}: {answer:#?}", row.query);
        names(answer, &row.fields);
    }
    untouched(&app);
}

#[tokio::test]
async fn parameters_are_decoded_and_unknown_ones_passed_over() {
    for app in TestApp::both().await {
        let alice = app.user("alice");
        alice.send_to_person("bob", "x").await.ok();
        for query in [
            "channelId=%62%6Fb&channelType=%31",
            "channel%49d=bob&channel%54ype=1&limit=%35",
            "channelId=bob&channelType=01&limit=0005&lastMessageSeq=000",
            "&&channelId=bob&&channelType=1&",
            "channelId=bob&channelType=1&other=%ff&other&%ff=1&=&other=2",
            "channelId=bob&channelType=1&fromUid=carol&login_uid=carol&uid=carol",
        ] {
            let answer = alice.get(&format!("/message/sync?{query}")).await;
            assert_eq!(seeds::page(answer), (vec![1], false), "{query}");
        }
    }
}

//! What a call that gets no answer says of its node, and how many a node gets.

use std::net::TcpListener;

use super::*;
use crate::config::Settings;
use crate::telemetry::Metrics;
use nodes::tests::nodes_at;

/// A client for two nodes, of which the first accepts connections and never answers, until the listener is dropped.
fn client(generation: Generation) -> (Client, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let metrics = Arc::new(Metrics::new());
    let mut client = Client::new(&Settings::for_tests().wukongim, metrics).unwrap();
    client.nodes = Arc::new(nodes_at(&[url.clone(), url]));
    client.nodes.settle(generation);
    (client, listener)
}

/// Calls the first node, which has answered quickly so far, and then the second, where there is another attempt.
async fn call(client: &Client, retry: Retry) -> Result<(), Error> {
    for node in client.nodes.all() {
        node.set_generation(client.generation().await?);
        node.record_success_time();
    }
    let load = &client.nodes.all()[0].load;
    for _ in 0..100 {
        let now = now_us();
        load.begin(now);
        load.end(now, now + 1, true);
    }
    sleep(Duration::from_millis(1)).await;
    let affinity = NodeAffinity::default();
    affinity.set(0);
    let mut policy = Policy::of("test", retry);
    policy.affinity = Some(&affinity);
    let outcome = client.on_node(policy, async |node| match &*node.name {
        "n1" => node.call(Call::get("test", "/test")).await.map(drop),
        _ => Ok(()),
    });
    outcome.await
}

#[tokio::test]
async fn one_call_that_an_idle_node_does_not_answer_for_a_whole_timeout_ejects_it() {
    let (client, _listener) = client(Generation::V3);
    assert_eq!(call(&client, Retry::Never).await, Err(Error::Timeout));
    let node = &client.nodes.all()[0];
    assert!(node.ejection.eject_if_due().is_some());
}

#[tokio::test]
async fn an_abandoned_read_is_one_failure_of_its_node() {
    let (client, _listener) = client(Generation::V3);
    let node = &client.nodes.all()[0];
    for abandoned in 1..=3 {
        assert_eq!(call(&client, Retry::Read).await, Ok(()));
        // The second attempt has begun the ejection that is due after the first.
        assert_eq!(node.ejection.is_ejected(), abandoned == 3, "{abandoned}");
    }
}

#[tokio::test]
async fn a_v2_node_at_its_limit_gets_no_more_of_a_batch() {
    let (client, _listener) = client(Generation::V2);
    while !client.nodes.all()[0].load.is_full() {
        client.nodes.all()[0].load.begin(now_us());
    }
    assert_eq!(call(&client, Retry::Never).await, Err(Error::Busy));
}

use std::time::Duration;

use super::*;
use crate::context::ByteBudget;
use crate::telemetry::Metrics;
use crate::wukongim::call::ejection::spawn_probes;
use crate::wukongim::call::node::PATHS;

/// Nodes that are never called.
pub(crate) fn nodes(count: u16) -> Nodes {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let urls: Vec<String> = (1..=count).map(url).collect();
    nodes_at(&urls)
}

/// Nodes at these addresses.
pub(crate) fn nodes_at(urls: &[String]) -> Nodes {
    let urls: Vec<Url> = urls.iter().map(|url| url.parse().unwrap()).collect();
    let (metrics, byte_budget) = (Arc::new(Metrics::new()), ByteBudget::unbounded());
    let client = crate::http_client::client;
    let timeout = Duration::from_secs(1);
    let transport = Transport::new(client, timeout, None, 0, metrics, byte_budget).unwrap();
    Nodes::new(&urls, None, &Arc::new(transport))
}

fn all_are(nodes: &Nodes, generation: Generation) {
    nodes.settle(generation);
    for node in nodes.all() {
        node.set_generation(generation);
        node.record_success_time();
    }
}

/// A probe has found this.
fn found(node: &Node, generation: Generation) {
    node.record_probe();
    node.set_generation(generation);
}

fn eject(node: &Node) {
    node.ejection.record_failure(true);
    assert!(node.ejection.eject_if_due().is_some());
}

#[test]
fn static_urls_are_built_once_and_urls_with_ids_on_demand() {
    let nodes = nodes_at(&["http://proxy.example/im".to_owned()]);
    let node = &nodes.all()[0];
    for path in PATHS {
        let expected = format!("http://proxy.example/im{path}");
        assert_eq!(node.url(path).unwrap().as_str(), expected);
    }
    let url = node.url("/route?uid=a%2Fb").unwrap();
    assert_eq!(url.as_str(), "http://proxy.example/im/route?uid=a%2Fb");
}

#[test]
fn in_flight_calls_decide_between_equal_nodes() {
    let nodes = nodes(2);
    all_are(&nodes, Generation::V2);
    for _ in 0..5 {
        nodes.all()[0].load.begin(now_us());
    }
    for _ in 0..100 {
        assert_eq!(nodes.choose(&[]), Some(1));
    }
}

#[test]
fn equal_nodes_share_the_calls() {
    let nodes = nodes(5);
    all_are(&nodes, Generation::V3);
    let mut chosen = [0; 5];
    for _ in 0..1000 {
        chosen[nodes.choose(&[]).unwrap()] += 1;
    }
    assert!(chosen.iter().all(|count| *count > 50), "{chosen:?}");
}

#[test]
fn when_all_are_ejected_each_is_tried_once_the_cheapest_first() {
    let nodes = nodes(3);
    all_are(&nodes, Generation::V2);
    for node in nodes.all() {
        eject(node);
    }
    nodes.all()[0].load.begin(0);
    nodes.all()[1].load.begin(0);
    nodes.all()[1].load.begin(0);
    let mut tried = Vec::new();
    while let Some(index) = nodes.choose(&tried) {
        tried.push(index);
    }
    assert_eq!(tried, [2, 0, 1]);
}

#[test]
fn a_node_of_the_other_generation_is_never_chosen() {
    let nodes = nodes(3);
    all_are(&nodes, Generation::V2);
    found(&nodes.all()[1], Generation::V3);
    for _ in 0..100 {
        assert_ne!(nodes.choose(&[]), Some(1));
    }
    assert!(!nodes.has_another(0, &[2]));
    for index in [0, 2] {
        eject(&nodes.all()[index]);
    }
    assert_ne!(nodes.choose(&[]), Some(1), "an ejected one is better");
    assert_eq!(nodes.choose(&[0, 2]), None);
}

#[test]
fn a_node_of_unknown_generation_is_probed_before_an_ejected_one_is_called() {
    let nodes = nodes(3);
    all_are(&nodes, Generation::V2);
    nodes.all()[1].forget_generation();
    assert_ne!(nodes.choose(&[]), Some(1));
    assert_eq!(nodes.choose(&[0, 2]), Some(1));
    for index in [0, 2] {
        eject(&nodes.all()[index]);
    }
    assert_eq!(nodes.choose(&[]), Some(1));
}

#[test]
fn unknown_nodes_are_probed_in_the_background() {
    let nodes = nodes(3);
    nodes.settle(Generation::V2);
    found(&nodes.all()[0], Generation::V2);
    found(&nodes.all()[1], Generation::V3);
    let names = |nodes: &Nodes| -> Vec<String> {
        let due = nodes.all().iter().filter(|node| node.take_due_probe());
        due.map(|node| node.name.to_string()).collect()
    };
    assert_eq!(names(&nodes), ["n3"]);
    assert!(names(&nodes).is_empty(), "one probe a second");
}

#[test]
fn a_single_node_is_never_ejected_and_never_probed_in_the_background() {
    let nodes = nodes(1);
    nodes.settle(Generation::V2);
    nodes.all()[0].ejection.record_failure(true);
    // Without a runtime, a probe would panic.
    spawn_probes(&nodes);
    assert!(!nodes.all()[0].ejection.is_ejected());
    assert_eq!(nodes.choose(&[]), Some(0));
    assert_eq!(nodes.choose(&[0]), None);
}

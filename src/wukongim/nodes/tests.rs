use super::*;

/// Nodes that are never called.
pub(in super::super) fn nodes(count: u16) -> Nodes {
    let url = |port: u16| Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let urls: Vec<Url> = (1..=count).map(url).collect();
    Nodes::new(&urls, None, &Metrics::new())
}

fn all_are(nodes: &Nodes, generation: Generation) {
    nodes.activate(generation);
    for node in nodes.all() {
        node.set_generation(generation);
    }
}

fn eject(node: &Node) {
    node.ejection.record_failure(true);
    assert!(node.ejection.eject_if_due().is_some());
}

fn index(choice: Option<Choice>) -> Option<usize> {
    choice.map(|choice| choice.index)
}

#[test]
fn static_urls_are_built_once_and_urls_with_ids_on_demand() {
    let url = Url::parse("http://proxy.example/im").unwrap();
    let nodes = Nodes::new(&[url], None, &Metrics::new());
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
        assert_eq!(index(nodes.choose(None, &[])), Some(1));
    }
}

#[test]
fn equal_nodes_share_the_calls() {
    let nodes = nodes(5);
    all_are(&nodes, Generation::V3);
    let mut chosen = [0; 5];
    for _ in 0..1000 {
        chosen[index(nodes.choose(None, &[])).unwrap()] += 1;
    }
    assert!(chosen.iter().all(|count| *count > 50), "{chosen:?}");
}

#[test]
fn when_all_are_ejected_the_least_failed_is_tried_once_each() {
    let nodes = nodes(3);
    all_are(&nodes, Generation::V2);
    for node in nodes.all() {
        eject(node);
    }
    nodes.all()[0].load.begin(0);
    nodes.all()[1].load.begin(0);
    nodes.all()[1].load.begin(0);
    let mut tried = Vec::new();
    while let Some(choice) = nodes.choose(None, &tried) {
        assert!(choice.ejected);
        tried.push(choice.index);
    }
    assert_eq!(tried, [2, 0, 1]);
}

#[test]
fn a_call_that_requires_one_generation_never_reaches_the_other() {
    let nodes = nodes(3);
    all_are(&nodes, Generation::V2);
    nodes.all()[1].set_generation(Generation::V3);
    for _ in 0..100 {
        assert_eq!(index(nodes.choose(Some(Generation::V3), &[])), Some(1));
        assert_ne!(index(nodes.choose(Some(Generation::V2), &[])), Some(1));
        assert_ne!(index(nodes.choose(None, &[])), Some(1));
    }
    assert_eq!(nodes.choose(Some(Generation::V3), &[1]), None);
    eject(&nodes.all()[1]);
    let choice = nodes.choose(Some(Generation::V3), &[]).unwrap();
    assert_eq!((choice.index, choice.ejected), (1, true));
}

#[test]
fn the_other_generation_is_used_when_no_node_of_the_active_one_is_left() {
    let nodes = nodes(3);
    all_are(&nodes, Generation::V2);
    nodes.all()[2].set_generation(Generation::V3);
    eject(&nodes.all()[0]);
    assert_eq!(index(nodes.choose(None, &[])), Some(1));
    // A node of unknown generation is probed before the other generation is used.
    nodes.all()[1].forget_generation();
    assert_eq!(index(nodes.choose(None, &[])), Some(1));
    eject(&nodes.all()[1]);
    // An ejected node of the active generation is still preferred.
    assert_ne!(index(nodes.choose(None, &[])), Some(2));
    assert_eq!(index(nodes.choose(None, &[0, 1])), Some(2));
}

#[test]
fn unknown_nodes_are_probed_once_a_generation_is_active() {
    let nodes = nodes(3);
    assert_eq!(nodes.due_for_probe().count(), 0);
    nodes.activate(Generation::V2);
    nodes.all()[0].set_generation(Generation::V2);
    nodes.all()[1].set_generation(Generation::V3);
    nodes.all()[1].last_probe_us.store(now_us(), Relaxed);
    let names = |nodes: &Nodes| -> Vec<String> {
        let asked = nodes.due_for_probe();
        asked.map(|node| node.name.to_string()).collect()
    };
    assert_eq!(names(&nodes), ["n3"]);
    assert!(names(&nodes).is_empty(), "one probe at a time");
    nodes.all()[2].is_probing.store(false, Relaxed);
    eject(&nodes.all()[2]);
    assert!(
        names(&nodes).is_empty(),
        "an ejected node is probed already"
    );
}

#[test]
fn a_single_node_is_never_ejected_and_never_probed() {
    let nodes = nodes(1);
    nodes.all()[0].ejection.record_failure(true);
    assert_eq!(nodes.newly_ejected().count(), 0);
    nodes.activate(Generation::V2);
    assert_eq!(nodes.due_for_probe().count(), 0);
    assert_eq!(index(nodes.choose(None, &[])), Some(0));
    assert_eq!(nodes.choose(None, &[0]), None);
}

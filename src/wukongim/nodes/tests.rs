use super::*;

/// So many nodes that nobody calls.
pub(in super::super) fn nodes(count: u16) -> Nodes {
    let url = |port: u16| Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let urls: Vec<Url> = (1..=count).map(url).collect();
    Nodes::new(&urls, None, &Metrics::new())
}

fn all_are(nodes: &Nodes, generation: Generation) {
    nodes.speak(generation);
    for node in nodes.all() {
        node.set_generation(generation);
    }
}

fn rests(node: &Node) {
    node.rest.failed(true);
    assert!(node.rest.begin_if_due().is_some());
}

fn place(choice: Option<Choice>) -> Option<usize> {
    choice.map(|choice| choice.place)
}

#[test]
fn addresses_are_made_once_and_those_with_ids_when_they_are_needed() {
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
fn calls_under_way_decide_between_equals() {
    let nodes = nodes(2);
    all_are(&nodes, Generation::V2);
    for _ in 0..5 {
        nodes.all()[0].load.begin(now_us());
    }
    for _ in 0..100 {
        assert_eq!(place(nodes.choose(None, &[])), Some(1));
    }
}

#[test]
fn all_nodes_are_chosen_when_none_is_better() {
    let nodes = nodes(5);
    all_are(&nodes, Generation::V3);
    let mut chosen = [0; 5];
    for _ in 0..1000 {
        chosen[place(nodes.choose(None, &[])).unwrap()] += 1;
    }
    assert!(chosen.iter().all(|count| *count > 50), "{chosen:?}");
}

#[test]
fn the_least_bad_is_tried_when_all_rest_and_each_only_once() {
    let nodes = nodes(3);
    all_are(&nodes, Generation::V2);
    for node in nodes.all() {
        rests(node);
    }
    nodes.all()[0].load.begin(0);
    nodes.all()[1].load.begin(0);
    nodes.all()[1].load.begin(0);
    let mut tried = Vec::new();
    while let Some(choice) = nodes.choose(None, &tried) {
        assert!(choice.resting);
        tried.push(choice.place);
    }
    assert_eq!(tried, [2, 0, 1]);
}

#[test]
fn a_permission_of_one_generation_leads_to_no_node_of_the_other() {
    let nodes = nodes(3);
    all_are(&nodes, Generation::V2);
    nodes.all()[1].set_generation(Generation::V3);
    for _ in 0..100 {
        assert_eq!(place(nodes.choose(Some(Generation::V3), &[])), Some(1));
        assert_ne!(place(nodes.choose(Some(Generation::V2), &[])), Some(1));
        assert_ne!(place(nodes.choose(None, &[])), Some(1));
    }
    assert_eq!(nodes.choose(Some(Generation::V3), &[1]), None);
    rests(&nodes.all()[1]);
    let choice = nodes.choose(Some(Generation::V3), &[]).unwrap();
    assert_eq!((choice.place, choice.resting), (1, true));
}

#[test]
fn the_other_generation_is_spoken_to_when_none_is_left_of_the_one() {
    let nodes = nodes(3);
    all_are(&nodes, Generation::V2);
    nodes.all()[2].set_generation(Generation::V3);
    rests(&nodes.all()[0]);
    assert_eq!(place(nodes.choose(None, &[])), Some(1));
    // What it is now is asked before the other one is turned to.
    nodes.all()[1].forget_generation();
    assert_eq!(place(nodes.choose(None, &[])), Some(1));
    rests(&nodes.all()[1]);
    // Nor is it turned to for one that may only have been slow.
    assert_ne!(place(nodes.choose(None, &[])), Some(2));
    assert_eq!(place(nodes.choose(None, &[0, 1])), Some(2));
}

#[test]
fn unknown_nodes_are_asked_in_the_background_once_something_is_known() {
    let nodes = nodes(3);
    assert_eq!(nodes.to_be_asked().count(), 0);
    nodes.speak(Generation::V2);
    nodes.all()[0].set_generation(Generation::V2);
    nodes.all()[1].set_generation(Generation::V3);
    nodes.all()[1].asked_us.store(now_us(), Relaxed);
    let names = |nodes: &Nodes| -> Vec<String> {
        let asked = nodes.to_be_asked();
        asked.map(|node| node.name.to_string()).collect()
    };
    assert_eq!(names(&nodes), ["n3"]);
    assert!(names(&nodes).is_empty(), "once at a time");
    nodes.all()[2].is_asked.store(false, Relaxed);
    rests(&nodes.all()[2]);
    assert!(names(&nodes).is_empty(), "whoever rests is probed already");
}

#[test]
fn one_node_alone_never_rests_and_is_asked_nothing_in_the_background() {
    let nodes = nodes(1);
    nodes.all()[0].rest.failed(true);
    assert_eq!(nodes.newly_resting().count(), 0);
    nodes.speak(Generation::V2);
    assert_eq!(nodes.to_be_asked().count(), 0);
    assert_eq!(place(nodes.choose(None, &[])), Some(0));
    assert_eq!(nodes.choose(None, &[0]), None);
}

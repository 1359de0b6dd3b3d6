//! Where the upstream side of clients' sockets connects to.

use std::net::SocketAddr;

use dev_upstream::{Fault, Faults};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use wukongim_gateway::wukongim::Error;

use crate::support::{TestApp, V2, V3};

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port on which nothing listens.
async fn closed() -> SocketAddr {
    listener().await.1
}

/// `/route` names this socket port.
fn route(faults: &Faults, tcp: &str) {
    let body = json!({"tcp_addr": tcp, "ws_addr": "ws://im.test:1", "wss_addr": ""});
    faults.clear();
    faults.always("/route", Fault::Status(200, body.to_string()));
}

async fn connect(app: &TestApp, tried: &mut Vec<usize>) -> Result<TcpStream, Error> {
    app.app.client.connect_socket(tried).await
}

/// Connects, and returns where.
async fn place(app: &TestApp, tried: &mut Vec<usize>) -> SocketAddr {
    let stream = connect(app, tried).await.unwrap();
    assert!(stream.nodelay().unwrap());
    stream.peer_addr().unwrap()
}

#[tokio::test]
async fn the_port_is_the_one_that_the_node_names_at_the_host_of_its_api() {
    for dialect in [V2, V3] {
        let app = TestApp::start(dialect).await;
        let (_listener, address) = listener().await;
        route(app.faults(), &format!("203.0.113.1:{}", address.port()));
        for _ in 0..3 {
            assert_eq!(place(&app, &mut Vec::new()).await, address);
        }
        assert_eq!(app.calls_to("/route").len(), 1, "it is asked once");
    }
}

#[tokio::test]
async fn a_port_that_refuses_is_asked_for_again_and_ejects_no_node() {
    let app = TestApp::builder().nodes(2).start().await;
    let (gone, (_listener, open)) = (closed().await, listener().await);
    for node in app.nodes() {
        route(node.faults(), &gone.to_string());
    }
    let mut tried = Vec::new();
    let failed = connect(&app, &mut tried).await.unwrap_err();
    assert_eq!(failed, Error::Connect);
    tried.sort_unstable();
    assert_eq!(tried, [0, 1], "each node once");
    for node in app.nodes() {
        route(node.faults(), &open.to_string());
    }
    assert_eq!(place(&app, &mut tried).await, open);
    app.user("alice").send_to_person("bob", "hi").await.ok();
    for node in ["n1", "n2"] {
        let ejected = app.metric(&format!("gateway_upstream_ejected{{node=\"{node}\"}}"));
        assert_eq!(ejected, Some(0.0));
    }
}

#[tokio::test]
async fn another_node_is_preferred_to_those_already_tried() {
    let app = TestApp::builder().nodes(2).start().await;
    let ((_one, one), (_two, two)) = (listener().await, listener().await);
    for (node, address) in app.nodes().into_iter().zip([one, two]) {
        route(node.faults(), &address.to_string());
    }
    for _ in 0..20 {
        let mut tried = Vec::new();
        let mut places = [place(&app, &mut tried).await, place(&app, &mut tried).await];
        places.sort_unstable();
        let mut both = [one, two];
        both.sort_unstable();
        assert_eq!(places, both);
        assert_eq!(tried.len(), 2);
        // All have been tried: any will do.
        assert!(both.contains(&place(&app, &mut tried).await));
        assert_eq!(tried.len(), 2);
    }
}

#[tokio::test]
async fn a_node_whose_api_is_gone_is_passed_over() {
    let app = TestApp::builder().nodes(2).start().await;
    let (_listener, open) = listener().await;
    for node in app.nodes() {
        route(node.faults(), &open.to_string());
    }
    app.user("alice").get("/health").await.ok();
    app.upstream.stop().await;
    for _ in 0..10 {
        let mut tried = Vec::new();
        assert_eq!(place(&app, &mut tried).await, open);
        assert_eq!(tried.last(), Some(&1));
    }
}

#[tokio::test]
async fn configured_addresses_are_used_instead_and_one_that_refuses_is_passed_over() {
    let ((_one, one), (_two, two), gone) = (listener().await, listener().await, closed().await);
    let app = TestApp::with(V2, move |settings| {
        settings.wukongim.tcp_addrs = [one, gone, two].map(|it| it.to_string()).into();
    })
    .await;
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let mut tried = Vec::new();
        let first = place(&app, &mut tried).await;
        let second = place(&app, &mut tried).await;
        assert_ne!(first, second);
        used.extend([first, second]);
    }
    assert_eq!(used, [one, two].into());
    assert!(app.calls_to("/route").is_empty());
}

#[tokio::test]
async fn the_start_asks_every_node_once() {
    let app = TestApp::builder().nodes(2).start().await;
    let (_listener, open) = listener().await;
    for node in app.nodes() {
        route(node.faults(), &open.to_string());
    }
    app.app.client.check_socket_routes().await;
    place(&app, &mut Vec::new()).await;
    for node in app.nodes() {
        assert_eq!(node.calls_to("/route").len(), 1);
    }
}

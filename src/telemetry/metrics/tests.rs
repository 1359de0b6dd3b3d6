//! docs/METRICS.md is what operators hold on to: it has a row for each metric, with its type and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;

const DOC: &str = include_str!("../../../docs/METRICS.md");

/// Type and labels by name.
type Table = BTreeMap<String, (String, BTreeSet<String>)>;

fn documented() -> Table {
    let rows = DOC.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [name, kind, labels, meaning, _] = cells[..] else {
            panic!("not four cells: {row}");
        };
        assert!(!meaning.is_empty(), "{row}");
        let labels = labels.split(", ").map(|label| label.trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty());
        let name = name.trim_end_matches('`').to_owned();
        (name, (kind.to_owned(), labels.map(str::to_owned).collect()))
    })
    .collect()
}

/// What an exposition has, under the names of its samples; every metric must have one.
fn exposed(text: &str) -> Table {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| {
            let (family, kind) = line.split_once(' ').unwrap();
            let (name, sample) = match kind {
                "counter" => (format!("{family}_total"), format!("{family}_total")),
                "info" => (format!("{family}_info"), format!("{family}_info")),
                "histogram" => (family.to_owned(), format!("{family}_count")),
                _ => (family.to_owned(), family.to_owned()),
            };
            let is_its = |line: &&str| {
                let rest = line.strip_prefix(&sample);
                rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            let line = text.lines().find(is_its);
            let line = line.unwrap_or_else(|| panic!("{name} is not counted by this test"));
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'));
            let labels = labels.map_or("", |(labels, _)| labels).split(',');
            let labels = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            (name, (kind.to_owned(), labels.collect()))
        })
        .collect()
}

#[test]
fn the_document_lists_every_metric_with_its_type_and_labels() {
    let store = StoreMeters::default();
    let metrics = Metrics::with_store(&store);
    metrics.request_answered(
        &HttpLabels {
            method: "GET",
            route: "unknown",
            status: 404,
        },
        0.0,
    );
    metrics.request_failed("unknown", "not_found");
    let node: Arc<str> = "n1".into();
    metrics.node(&node);
    metrics.upstream_called(&node, "health", "ok", 0.0);
    metrics.upstream_retried("health", false);
    metrics.upstream_retried("health", true);
    metrics.cache_looked_up("members", true);
    metrics.limited("user");
    store.observe("ping", "ok", Duration::ZERO);
    let external = &metrics.external;
    external.callback_called("message.send", "allowed", Duration::ZERO);
    external.keys_fetched("ok");
    metrics.gauges.set(&GaugeSnapshot {
        in_flight: 3,
        buffered: 0,
        remembered_sends: 0,
        limiter_entries: [("user", 0), ("address", 0)],
        caches: vec![("members", 0)],
        store: [("busy", 0), ("idle", 0)],
    });
    let (documented, exposed) = (documented(), exposed(&metrics.render()));
    for (name, row) in &exposed {
        assert_eq!(documented.get(name), Some(row), "{name}");
    }
    let gone = documented
        .keys()
        .filter(|name| !exposed.contains_key(*name));
    let gone: Vec<_> = gone.collect();
    assert!(gone.is_empty(), "documented and not there: {gone:?}");
}

#[test]
fn the_names_that_people_hold_stay() {
    let documented = documented();
    for name in [
        "gateway_http_requests_total{method,route,status}",
        "gateway_http_request_duration_seconds{method,route}",
        "gateway_http_requests_in_flight{}",
        "gateway_upstream_requests_total{call,node,outcome}",
        "gateway_upstream_request_duration_seconds{call}",
        "gateway_message_confirm_seconds{}",
        "gateway_message_confirm_looks_total{}",
        "gateway_cache_lookups_total{cache,outcome}",
        "gateway_limited_total{limit}",
        "gateway_build_info{version}",
        "gateway_sockets{protocol}",
        "gateway_socket_connects_total{outcome}",
        "gateway_socket_connack_seconds{}",
        "gateway_socket_frames_total{direction,type}",
        "gateway_socket_bytes_total{direction}",
        "gateway_socket_refused_total{reason}",
        "gateway_socket_ends_total{cause}",
    ] {
        let (name, labels) = name.trim_end_matches('}').split_once('{').unwrap();
        let (_, documented) = &documented[name];
        let documented: Vec<&str> = documented.iter().map(String::as_str).collect();
        assert_eq!(documented.join(","), labels, "{name}");
    }
}

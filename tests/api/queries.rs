//! Whether the dashboard, the alert rules and the queries of docs/METRICS.md name metrics, labels and values that a gateway has, and
//! whether they are complete. `promtool` evaluates them on series made of real `/metrics`; that the rules fire when they should is the
//! subject of `promtool test rules` with deploy/prometheus/alerts.test.yml.

mod promtool;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use self::promtool::{Series, variants};
use self::yaml::values;
use crate::operations::Ops;
use crate::support::issuer::Issuer;
use crate::support::keys::ED_ONE;
use crate::support::prelude::*;

const DASHBOARD: &str = "deploy/grafana/gateway.json";
const ALERTS: &str = "deploy/prometheus/alerts.yml";
const ALERTS_TEST: &str = "deploy/prometheus/alerts.test.yml";
const DOCUMENT: &str = "docs/METRICS.md";

fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// `/metrics` of two gateways that together have a row of everything.
async fn expositions() -> Vec<String> {
    let usual = TestApp::builder().upstream(V2).nodes(2).start().await;
    usual.group("g", "alice", &["bob"]).await;
    let alice = usual.user("alice");
    alice.send_to_group("g", "hi").await.ok();
    alice.sync(2, "g", "").await.ok();
    alice.get("/nothing").await.fails(404, "not_found");

    let backend = Backend::start().await;
    let issuer = Issuer::start(&[ED_ONE.jwk(Some("one"))]).await;
    let keys = issuer.url();
    let more = TestApp::builder().upstream(V3).config(backend.decides());
    let more = more.config(move |settings| settings.auth.jwks_url = Some(keys));
    let more = more.start().await;
    let faults = more.upstream.faults();
    faults.always("/message/send", Fault::ResetAfter);
    // Each may be made once more, until a tenth of all has been.
    let sends = (0..20).map(|index| {
        let sender = more.user(&format!("u{index}"));
        async move { sender.send_to_person("bob", "hi").await }
    });
    join_all(sends).await;
    until(|| {
        more.metric(r#"gateway_jwks_fetches_total{outcome="ok"}"#)
            .is_some()
    })
    .await;

    let mut texts = Vec::new();
    for app in [usual, more] {
        let ops = Ops::of(&app).await;
        ops.ready().await;
        texts.push(ops.get("/metrics").await.1);
    }
    texts
}

fn dashboard() -> Value {
    serde_json::from_str(&file(DASHBOARD)).unwrap()
}

/// The panels, rows among them; none is folded into its row.
fn panels(board: &Value) -> &[Value] {
    board["panels"].as_array().unwrap()
}

/// Each query of a panel, with where it is and its legend.
fn panel_queries(board: &Value) -> Vec<(String, &str, &str)> {
    let mut queries = Vec::new();
    for panel in panels(board) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let index = format!("{} {}", panel["title"], target["refId"]);
            let text = |key: &str| target[key].as_str().unwrap();
            queries.push((index, text("expr"), text("legendFormat")));
        }
    }
    queries
}

/// The labels that a legend (`{{label}}`) shows.
fn labels_shown(legend: &str) -> impl Iterator<Item = &str> {
    let names = legend.split("{{").skip(1);
    names.map(|rest| rest.split("}}").next().unwrap())
}

/// The rules: name and text of each.
fn alerts(text: &str) -> BTreeMap<&str, &str> {
    let rules = text.split("- alert: ").skip(1);
    rules
        .map(|rule| (rule.lines().next().unwrap(), rule))
        .collect()
}

/// What docs/METRICS.md recommends to ask.
fn documented_queries(document: &str) -> Vec<&str> {
    let (_, section) = document.split_once("## Queries").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let code = section.split('`').skip(1).step_by(2);
    code.filter(|code| code.contains("gateway_")).collect()
}

#[tokio::test]
#[ignore = "needs promtool; .ci/run runs it"]
async fn every_query_names_metrics_and_labels_that_are_there() {
    let (texts, document) = (expositions().await, file(DOCUMENT));
    let series = Series::new(&texts, &document);
    let without_rows = series.families_without_rows(&texts);
    assert!(without_rows.is_empty(), "not tested: {without_rows:?}");

    let board = dashboard();
    let mut queries: Vec<String> = Vec::new();
    for (index, query, legend) in panel_queries(&board) {
        queries.extend(variants(query));
        for label in labels_shown(legend) {
            let kept = query.split_once("by (").unwrap().1;
            let kept = kept.split(')').next().unwrap();
            let is_kept = kept.split(", ").any(|name| name == label);
            assert!(is_kept, "{index} shows {label}, which its result lacks");
        }
    }
    for list in ["templating", "annotations"] {
        for entry in board[list]["list"].as_array().unwrap() {
            let definition = entry["definition"].as_str().or(entry["expr"].as_str());
            let query = definition.unwrap_or("up").replace("label_values", "");
            queries.extend(variants(&query.replace(", instance)", ")")));
        }
    }
    for series in values(&file(ALERTS_TEST), "series") {
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap();
        let labels = labels
            .split(',')
            .filter(|label| !label.starts_with("instance"));
        if name == "up" {
            continue;
        }
        queries.push(name.to_owned());
        queries.extend(labels.map(|label| format!("{name}{{{label}}}")));
    }
    queries.extend(documented_queries(&document).into_iter().flat_map(variants));
    let empty = series.empty_results(&queries);
    assert!(empty.is_empty(), "without a result: {empty:#?}");
}

#[test]
#[ignore = "needs promtool; .ci/run runs it"]
fn a_query_that_names_something_else_is_noticed() {
    let text = "gateway_calls_total{node=\"n1\",outcome=\"ok\"} 1\ngateway_time_bucket{le=\"1\"} 1\ngateway_held 2\n# EOF\n";
    let document = "| `gateway_calls_total` | counter | `node`, `outcome` | `ok`, `lost` |\n";
    let series = Series::new(&[text.to_owned()], document);
    for good in [
        "gateway_held",
        "up{job=\"wukongim-gateway\"} > 0",
        "sum by (node) (rate(gateway_calls_total{outcome!=\"lost\", instance=~\"$instance\"}[5m])) > 0.01",
        "histogram_quantile(0.99, sum by (le) (rate(gateway_time_bucket[5m])))",
        "gateway_held and on (instance) sum by (instance) (gateway_calls_total{node=~\"n.*\"} offset 5m)",
    ] {
        assert_eq!(series.empty_results(&variants(good)), [""; 0], "{good}");
    }
    for bad in [
        "gateway_helt",
        "sum(rate(gateway_call_total[5m]))",
        "gateway_held / gateway_heldt",
        "gateway_held or gateway_heldt",
        "gateway_calls_total{nod=\"n1\"}",
        "gateway_calls_total{outcome=\"lots\"}",
        "gateway_calls_total{outcome=~\"ok|lots\"}",
        "gateway_calls_total{outcome!=\"lots\"}",
        "gateway_calls_total{outcome!~\"ok|lots\"}",
        "sum by (nod) (gateway_calls_total)",
        "sum by (le) (rate(gateway_calls_total[5m]))",
        "gateway_held * on (nod) gateway_held",
        "summ(gateway_held)",
        "sum by (node (gateway_calls_total)",
    ] {
        assert!(!series.empty_results(&variants(bad)).is_empty(), "{bad}");
    }
}

#[test]
fn the_dashboard_can_be_loaded_and_read() {
    let board = dashboard();
    assert_eq!(board["schemaVersion"], 39);
    assert_eq!(board["uid"], "wukongim-gateway");
    let variables = board["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|v| [&v["name"], &v["type"]]).collect();
    let expected = [["datasource", "datasource"], ["instance", "query"]];
    assert_eq!(variables, expected);
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels(&board) {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "id of {title}");
        let index = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        let [x, y, w, h] = index;
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}: {index:?}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies upon another panel");
        }
        if panel["type"] == "row" {
            assert_eq!(panel["panels"], serde_json::json!([]), "{title}");
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let description = panel["description"].as_str().unwrap();
        assert!(
            description.len() > 30 && description.ends_with('.'),
            "{title}"
        );
        let refs = panel["targets"].as_array().unwrap().iter();
        let refs: Vec<_> = refs
            .map(|target| target["refId"].as_str().unwrap())
            .collect();
        assert_eq!(refs, ["A", "B", "C"][..refs.len()], "{title}");
        assert!(!refs.is_empty(), "{title}");
        let has_unit = panel["fieldConfig"]["defaults"]["unit"].is_string();
        let needs_none = matches!(panel["type"].as_str(), Some("state-timeline" | "heatmap"));
        assert!(has_unit || needs_none, "{title} has no unit");
    }
    for (index, query, _) in panel_queries(&board) {
        let (asked, chosen) = ("gateway_", "{instance=~\"$instance\"");
        let metrics = query.matches(asked).count();
        assert_eq!(
            query.matches(chosen).count(),
            metrics,
            "{index} heeds no choice"
        );
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let (document, board) = (file(DOCUMENT), file(DASHBOARD));
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split('`').next());
    let lacking: Vec<_> = names.filter(|name| !board.contains(name)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

#[test]
fn every_alert_says_what_to_look_at_and_fires_in_a_test() {
    let (text, tests) = (file(ALERTS), file(ALERTS_TEST));
    let alerts = alerts(&text);
    assert_eq!(
        alerts.len(),
        values(&text, "expr").len(),
        "a rule that is no alert"
    );
    for (name, rule) in alerts {
        let one = |key: &str| {
            let found = values(rule, key);
            assert_eq!(found.len(), 1, "{key} of {name}");
            found[0].clone()
        };
        assert!(one("for").ends_with('m'), "{name}");
        let severity = one("labels");
        assert!(
            ["{severity: critical}", "{severity: warning}"].contains(&&*severity),
            "{name}: {severity}"
        );
        assert!(one("summary").len() > 20, "{name}");
        assert!(one("description").len() > 60, "{name}");
        let fires = format!("alertname=\"{name}\", alertstate=\"firing\"");
        assert!(tests.contains(&fires), "{name} fires in no test");
    }
}

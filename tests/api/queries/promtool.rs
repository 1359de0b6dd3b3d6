//! Evaluates queries by `promtool test rules` on series made of `/metrics`: which of them have no result.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;

use serde_json::json;
use wukongim_gateway::http::errors::ApiError;
use wukongim_gateway::routes::Endpoint;

/// Series that Prometheus would have scraped from a gateway, all of them counting up.
pub struct Series(BTreeSet<String>);

impl Series {
    /// The samples of these expositions; and again with each of their labels set to each value that the metric's row in `document` has in
    /// backticks, and to each route, code and status, since no
    /// exposition has all of them.
    pub fn new(expositions: &[String], document: &str) -> Self {
        let rows = document
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let documented: BTreeMap<_, Vec<_>> = rows
            .map(|(name, row)| (name, row.split('`').skip(1).step_by(2).collect()))
            .collect();
        let errors = ApiError::ALL.iter();
        let statuses: Vec<_> = errors
            .map(|error| error.status().as_str().to_owned())
            .chain(["207", "499"].map(str::to_owned))
            .collect();
        let mut series = BTreeSet::from([r#"up{job="wukongim-gateway",instance="a"}"#.to_owned()]);
        let lines = expositions.iter().flat_map(|text| text.lines());
        for line in lines.filter(|line| !line.starts_with('#')) {
            let sample = line.rsplit_once(' ').unwrap().0;
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let labels: Vec<_> = labels.trim_end_matches('}').split_terminator(',').collect();
            series.insert(format!("{name}{{instance=\"a\",{}}}", labels.join(",")));
            for (index, label) in labels.iter().enumerate() {
                let label = label.split('=').next().unwrap();
                let values: Vec<&str> = match label {
                    "code" => ApiError::ALL.iter().map(|error| error.code()).collect(),
                    "route" => Endpoint::all()
                        .iter()
                        .map(|endpoint| endpoint.route)
                        .collect(),
                    "status" => statuses.iter().map(String::as_str).collect(),
                    _ => documented.get(name).cloned().unwrap_or_default(),
                };
                for value in values {
                    let changed = format!("{label}=\"{value}\"");
                    let mut labels = labels.clone();
                    labels[index] = &changed;
                    series.insert(format!("{name}{{instance=\"a\",{}}}", labels.join(",")));
                }
            }
        }
        Self(series)
    }

    /// The declared families that have no sample.
    pub fn families_without_rows<'a>(&self, expositions: &'a [String]) -> BTreeSet<&'a str> {
        let lines = expositions.iter().flat_map(|text| text.lines());
        let families = lines.filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let has_none = |family: &&str| {
            let ends = ["", "_total", "_info", "_count"];
            let names = ends.map(|end| format!("{family}{end}{{"));
            let mut all = self.0.iter();
            !all.any(|series| names.iter().any(|name| series.starts_with(name)))
        };
        families.filter(has_none).collect()
    }

    /// Those of the queries that are no PromQL or have no result. `promtool` is told to expect none of any, and lists the others.
    pub fn empty_results(&self, queries: &[String]) -> Vec<String> {
        let input = self.0.iter();
        let input: Vec<_> = input
            .map(|series| json!({"series": series, "values": "1+1x40"}))
            .collect();
        let tests: Vec<_> = queries
            .iter()
            .map(|query| json!({"expr": query, "eval_time": "10m", "exp_samples": []}))
            .collect();
        let file = json!({
            "rule_files": [],
            "evaluation_interval": "15s",
            "tests": [{"interval": "15s", "input_series": input, "promql_expr_test": tests}],
        });
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, file.to_string()).unwrap();
        let output = Command::new("promtool")
            .args(["test", "rules"])
            .arg(path.path())
            .output()
            .unwrap();
        let output = [output.stdout, output.stderr].concat();
        let output = String::from_utf8(output).unwrap();
        let is_read = output.contains("expr: ") || output.contains("SUCCESS");
        assert!(is_read, "{output}");
        let has_result =
            |query: &&String| output.contains(&format!("expr: {query:?}, time: 10m,\n"));
        queries
            .iter()
            .filter(|query| !has_result(query))
            .cloned()
            .collect()
    }
}

/// Forms of a query each of which has a result only if all that it names exists: both sides of an `or`, each alternative of a matcher, what
/// a matcher excludes, and each label by which it groups or matches on every metric of it.
pub fn variants(query: &str) -> Vec<String> {
    let query = query
        .replace("$__rate_interval", "5m")
        .replace("$__range", "1h")
        .replace("$instance", ".*");
    let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut variants = vec![query.clone()];
    variants.extend(query.split(" or ").map(str::to_owned));
    for operator in ["=~", "!=", "!~"] {
        let parts: Vec<_> = query.split(&format!("{operator}\"")).collect();
        for index in 1..parts.len() {
            let (before, (value, after)) = (
                parts[..index].join(&format!("{operator}\"")),
                parts[index].split_once('"').unwrap(),
            );
            let after = [&[after], &parts[index + 1..]]
                .concat()
                .join(&format!("{operator}\""));
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_/|".contains(c);
            if value.chars().all(is_plain) {
                let values = value.split('|');
                variants.extend(values.map(|value| format!("{before}=\"{value}\"{after}")));
            }
        }
    }
    for lists in [" by (", " on ("] {
        for list in query.split(lists).skip(1) {
            let labels = list.split(')').next().unwrap().split(", ");
            variants.extend(labels.map(|label| with_label(&query, label)));
        }
    }
    variants
}

/// The query with a matcher on each of its metrics that demands this label.
fn with_label(query: &str, label: &str) -> String {
    let mut parts = query.split("gateway_");
    let mut result = parts.next().unwrap().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, rest) = part.split_at(end.unwrap_or(part.len()));
        let rest = rest
            .strip_prefix('{')
            .map_or_else(|| format!("}}{rest}"), |matchers| format!(",{matchers}"));
        write!(result, "gateway_{name}{{{label}!=\"\"{rest}").unwrap();
    }
    result
}

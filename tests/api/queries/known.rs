//! What can be asked for: the names and labels of `/metrics`, and the values that the documents tell of.

use std::collections::{BTreeMap, BTreeSet};

use wukongim_gateway::http::errors::ApiError;
use wukongim_gateway::routes::Endpoint;

use super::promql::{Query, Selector, read};

/// Values by label.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// What Prometheus itself puts on everything it scrapes.
const OF_TARGETS: [&str; 2] = ["job", "instance"];

/// The functions that are used; a query with another one is to be tried by hand first.
const FUNCTIONS: [&str; 12] = [
    "absent",
    "changes",
    "count",
    "histogram_quantile",
    "increase",
    "label_values",
    "max",
    "min",
    "rate",
    "scalar",
    "sum",
    "time",
];

/// Every sample's name with its labels.
pub struct Known {
    samples: BTreeMap<String, Labels>,
    /// Words that the documents use for values, by the metric they are told of.
    told: BTreeMap<String, BTreeSet<String>>,
}

impl Known {
    /// What these expositions have, and the values in backticks that the table of this document has for each metric.
    pub fn new(expositions: &[String], document: &str) -> Self {
        let mut samples = BTreeMap::<String, Labels>::new();
        samples.insert("up".into(), Labels::new());
        let lines = expositions.iter().flat_map(|text| text.lines());
        for line in lines.filter(|line| !line.starts_with('#')) {
            let end = line.find(['{', ' ']).unwrap();
            let labels = samples.entry(line[..end].to_owned()).or_default();
            let pairs = line[end..]
                .strip_prefix('{')
                .and_then(|rest| rest.rsplit_once('}'));
            let pairs = pairs.map_or("", |(pairs, _)| pairs).split(',');
            for (label, value) in pairs.filter_map(|pair| pair.split_once('=')) {
                let values = labels.entry(label.to_owned()).or_default();
                values.insert(value.trim_matches('"').to_owned());
            }
        }
        let rows = document
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let told = rows.map(|(name, row)| {
            let words = row.split('`').skip(1).step_by(2).map(str::to_owned);
            (name.to_owned(), words.collect())
        });
        Self {
            samples,
            told: told.collect(),
        }
    }

    /// The families that are declared and have no sample.
    pub fn without_rows(&self, expositions: &[String]) -> Vec<String> {
        let lines = expositions.iter().flat_map(|text| text.lines());
        let families = lines.filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let has_none = |family: &&str| {
            let of_it = ["", "_total", "_info", "_count"].map(|end| format!("{family}{end}"));
            !of_it.iter().any(|name| self.samples.contains_key(name))
        };
        let set: BTreeSet<_> = families.filter(has_none).map(str::to_owned).collect();
        set.into_iter().collect()
    }

    /// What is wrong with a query, and with the labels that are shown of its result.
    pub fn problems(&self, text: &str, shown: &[&str]) -> Vec<String> {
        let query = match read(text) {
            Ok(query) => query,
            Err(problem) => return vec![problem],
        };
        let mut problems = Vec::new();
        let functions = query.functions.iter();
        let strange = functions.filter(|name| !FUNCTIONS.contains(&name.as_str()));
        problems.extend(strange.map(|name| format!("function {name}")));
        for selector in &query.selectors {
            problems.extend(self.of_selector(selector));
        }
        for group in &query.groups {
            for label in &group.labels {
                let lacks = |selector: &&Selector| !self.has(selector, label);
                let lacking = query.in_scope(group).find(lacks);
                problems.extend(lacking.map(|s| format!("{} has no label {label}", s.metric)));
            }
        }
        let lost = shown.iter().filter(|label| !self.keeps(&query, label));
        problems.extend(lost.map(|label| format!("shows {label}, which it has not")));
        problems
    }

    fn of_selector(&self, selector: &Selector) -> Vec<String> {
        let metric = &selector.metric;
        let Some(labels) = self.samples.get(metric) else {
            return vec![format!("no metric {metric}")];
        };
        let mut problems = Vec::new();
        for matcher in &selector.matchers {
            let label = &matcher.label;
            if !self.has(selector, label) {
                problems.push(format!("{metric} has no label {label}"));
            } else if let Some(seen) = labels.get(label) {
                let values = alternatives(&matcher.value).into_iter();
                let strange = values.filter(|value| !self.is_value(metric, seen, value));
                problems.extend(strange.map(|value| format!("{metric} has no {label} {value}")));
            }
        }
        problems
    }

    fn is_value(&self, metric: &str, seen: &BTreeSet<String>, value: &str) -> bool {
        seen.contains(value)
            || self
                .told
                .get(metric)
                .is_some_and(|told| told.contains(value))
            || Endpoint::all()
                .iter()
                .any(|endpoint| endpoint.route == value)
            || ApiError::ALL
                .iter()
                .any(|error| error.code() == value || error.status().as_str() == value)
    }

    fn has(&self, selector: &Selector, label: &str) -> bool {
        let labels = self.samples.get(&selector.metric);
        OF_TARGETS.contains(&label) || labels.is_none_or(|labels| labels.contains_key(label))
    }

    /// Whether the result still has this label.
    fn keeps(&self, query: &Query, label: &str) -> bool {
        let mut kept = query.groups.iter().filter(|group| group.is_kept).peekable();
        if kept.peek().is_some() {
            return kept.any(|group| group.labels.iter().any(|name| name == label));
        }
        query
            .selectors
            .iter()
            .any(|selector| self.has(selector, label))
    }
}

/// The values that a matcher means, where it is plain words and no pattern or variable.
fn alternatives(value: &str) -> Vec<&str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '|');
    if value.chars().all(is_plain) && !value.is_empty() {
        value.split('|').collect()
    } else {
        Vec::new()
    }
}

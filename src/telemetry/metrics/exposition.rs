//! Converts OpenMetrics text to Prometheus's text format 0.0.4: the same samples with that format's metadata.

/// Converts this OpenMetrics text.
pub(super) fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // The metric's name depends on its type, which is on the next line.
            help = described.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = type_of(line) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                same => ("", same),
            };
            text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

fn type_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_infos_have_the_names_of_their_samples_and_nothing_is_lost() {
        let open_metrics = r#"# HELP a_requests requests answered.
# TYPE a_requests counter
a_requests_total{route="/x"} 1
a_requests_total{route="/y"} 2
# HELP a_time_seconds time.
# TYPE a_time_seconds histogram
# UNIT a_time_seconds seconds
a_time_seconds_sum 0.5
a_time_seconds_bucket{le="+Inf"} 1
# HELP a_build this build.
# TYPE a_build info
a_build_info{version="1"} 1
# EOF
"#;
        let expected = r#"# HELP a_requests_total requests answered.
# TYPE a_requests_total counter
a_requests_total{route="/x"} 1
a_requests_total{route="/y"} 2
# HELP a_time_seconds time.
# TYPE a_time_seconds histogram
a_time_seconds_sum 0.5
a_time_seconds_bucket{le="+Inf"} 1
# HELP a_build_info this build.
# TYPE a_build_info gauge
a_build_info{version="1"} 1
"#;
        assert_eq!(prometheus_text(open_metrics), expected);
    }
}

//! A reader for this repository's YAML files: only what the Prometheus rules and their tests need.

/// The value of every `key: …` that begins a line or a map in it: beside the key, with or without quotes, or as a block below it.
pub fn values(text: &str, key: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let value_at = |(at, line): (usize, &&str)| {
        let entry = line.trim_start_matches(['-', ' ', '{']);
        let value = entry.strip_prefix(key)?.strip_prefix(": ")?.trim();
        if let Some(quote) = value
            .chars()
            .next()
            .filter(|first| matches!(first, '"' | '\''))
        {
            return value.split(quote).nth(1).map(str::to_owned);
        }
        if !matches!(value, "|" | ">-") {
            return Some(value.to_owned());
        }
        let below = lines[at + 1..]
            .iter()
            .map(|below| (indent(below), below.trim()));
        let block = below.take_while(|(deep, _)| *deep > indent(line));
        Some(block.map(|(_, text)| text).collect::<Vec<_>>().join(" "))
    };
    lines.iter().enumerate().filter_map(value_at).collect()
}

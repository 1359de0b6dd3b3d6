//! The effective configuration as printed by `check-config`. Secrets are `[redacted]`.

use std::fmt::Write as _;

use super::Loaded;

/// TOML with each value's origin as a comment, then the warnings as comments.
pub fn describe(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut section = "";
    for shown in &loaded.shown {
        let (in_section, key) = shown.key.split_once('.').unwrap_or(("", shown.key));
        if in_section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{gap}[{in_section}]");
            section = in_section;
        }
        let _ = writeln!(text, "{key} = {}  # {}", shown.value, shown.origin);
    }
    if !loaded.warnings.is_empty() {
        text.push('\n');
    }
    for warning in &loaded.warnings {
        let _ = writeln!(text, "# warning: {warning}");
    }
    text
}

//! Which module of `src` uses which: exactly the arrows listed here and in docs/ARCHITECTURE.md, and none in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module after all that use it. Unit tests may use more.
const ARROWS: &str = "\
cli → auth, config, domain, gateway, routes
gateway → config, context, http, limits, per_worker, routes, socket, state, store, telemetry, wukongim
routes → auth, authorization, channels, config, conversations, domain, history, http, json, limits, messages, socket, state, store, telemetry, wukongim
socket → auth, authorization, domain, state, telemetry, wukongim
state → auth, authorization, channels, config, context, conversations, domain, history, http, limits, messages, per_worker, store, telemetry, wukongim
http → auth, authorization, channels, config, context, conversations, domain, history, json, limits, messages, store, wukongim
channels → authorization, config, context, domain, limits, store, telemetry, wukongim
conversations → authorization, config, context, domain, limits, store, telemetry, wukongim
history → authorization, config, domain, limits, messages, wukongim
messages → authorization, config, context, domain, limits, telemetry, wukongim
authorization → config, context, domain, http_client, store, telemetry, wukongim
auth → config, context, domain, http_client, limits, store, telemetry, wukongim
limits → config, context, domain, telemetry
store → domain, telemetry
wukongim → config, context, domain, http_client, json, per_worker, telemetry
telemetry → config, context, http_client
config → domain, http_client
domain → json
context → nothing
http_client → nothing
json → nothing
per_worker → nothing
";

/// All Rust files below `directory`.
pub(crate) fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file without comments and unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    let code = lines.collect::<Vec<_>>().join("\n");
    let tests = code.find("#[cfg(test)]\nmod tests {");
    code[..tests.unwrap_or(code.len())].to_owned()
}

fn name(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The modules that a path begins with after `crate::`: one, or each of a group's.
fn targets(path: &str) -> Vec<&str> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let (mut depth, mut found) = (1, vec![name(group)]);
    for (at, sign) in group.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => found.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn modules_use_each_other_one_way_and_as_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut paths, mut found) = (Vec::new(), BTreeMap::<String, BTreeSet<String>>::new());
    files(&root.join("src"), &mut paths);
    for path in &paths {
        let file = path
            .strip_prefix(root.join("src"))
            .unwrap()
            .with_extension("");
        let parts: Vec<_> = file.iter().map(|part| part.to_str().unwrap()).collect();
        if matches!(parts[..], ["lib" | "main"]) || parts.contains(&"tests") {
            continue;
        }
        let uses = found.entry(parts[0].to_owned()).or_default();
        let code = code(path);
        for (at, prefix) in code.match_indices("crate::") {
            let own = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let targets = targets(&code[at + prefix.len()..]).into_iter();
            uses.extend(
                targets
                    .filter(|target| !own && *target != parts[0])
                    .map(str::to_owned),
            );
        }
        let depth = parts.iter().filter(|part| **part != "mod").count();
        let above = "super::".repeat(depth);
        assert!(
            !code.contains(&above),
            "{file:?} leaves its module by {above}"
        );
    }
    for (place, line) in ARROWS.lines().enumerate() {
        let (module, listed) = line.split_once(" → ").unwrap();
        let uses = found.remove(module).unwrap_or_default();
        let outer: Vec<_> = ARROWS.lines().take(place + 1).map(name).collect();
        let back = uses.iter().find(|used| outer.contains(&used.as_str()));
        assert_eq!(back, None, "{module} uses a module further out");
        let uses: Vec<_> = uses.iter().map(String::as_str).collect();
        let listed = listed.split(", ");
        let listed: Vec<_> = listed.filter(|used| *used != "nothing").collect();
        assert_eq!(uses, listed, "what {module} uses, and what is listed");
    }
    assert!(found.is_empty(), "not listed: {found:?}");
    let page = std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap();
    assert!(
        page.contains(&format!("\n```\n{ARROWS}```\n")),
        "docs/ARCHITECTURE.md lists others"
    );
}

//! The documents: the Chinese README in step with the English one, the Chinese reference complete, links that lead somewhere, clues that the
//! gateway gives. Their examples are run by tests/serve/documents.rs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::arrows::files;

const ENGLISH: &str = "README.md";
const CHINESE: &str = "README.zh-CN.md";
const REFERENCE: &str = "docs/zh/api.md";
const FAQ: &str = "docs/zh/faq.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A Markdown file, its code blocks apart.
struct Page {
    lines: Vec<String>,
    blocks: Vec<String>,
}

impl Page {
    fn read(path: &str) -> Self {
        let (mut lines, mut blocks, mut is_code) = (Vec::new(), Vec::<String>::new(), false);
        for line in read(path).lines() {
            if line.starts_with("```") {
                is_code = !is_code;
                if is_code {
                    blocks.push(format!("{line}\n"));
                }
            } else if is_code {
                // Comments are translated.
                let code = line.split(" #").next().unwrap().trim_end();
                writeln!(blocks.last_mut().unwrap(), "{code}").unwrap();
            } else {
                lines.push(line.to_owned());
            }
        }
        assert!(!is_code, "{path}: a code block has no end");
        Self { lines, blocks }
    }

    fn headings(&self) -> impl Iterator<Item = (&str, &str)> {
        let headings = self.lines.iter().filter(|line| line.starts_with('#'));
        headings.map(|line| line.split_once(' ').unwrap())
    }

    /// What its links lead to.
    fn links(&self) -> impl Iterator<Item = &str> {
        let parts = self.lines.iter().flat_map(|line| line.split("](").skip(1));
        parts.map(|part| part.split(')').next().unwrap())
    }

    /// What can follow a `#`, as GitHub makes it of the headings.
    fn anchors(&self) -> BTreeSet<String> {
        let explicit = self
            .lines
            .iter()
            .flat_map(|line| line.split("<a id=\"").skip(1));
        let explicit = explicit.map(|part| part.split('"').next().unwrap().to_owned());
        let slug = |text: &str| -> String {
            let lower = text.to_lowercase();
            let kept = lower
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        let headings = self.headings().map(|(_, text)| slug(text));
        headings.chain(explicit).collect()
    }
}

#[test]
fn the_chinese_readme_is_in_step_with_the_english_one() {
    let (english, chinese) = (Page::read(ENGLISH), Page::read(CHINESE));
    let levels = |page: &Page| -> Vec<String> {
        page.headings().map(|(level, _)| level.to_owned()).collect()
    };
    assert_eq!(levels(&chinese), levels(&english), "levels of headings");
    let rows = |page: &Page| {
        page.lines
            .iter()
            .filter(|line| line.starts_with('|'))
            .count()
    };
    assert_eq!(rows(&chinese), rows(&english), "rows of tables");
    for (chinese, english) in chinese.blocks.iter().zip(&english.blocks) {
        assert_eq!(chinese, english);
    }
    assert_eq!(chinese.blocks.len(), english.blocks.len(), "code blocks");
    let links = |page: &Page, other: &str| -> Vec<String> {
        let links = page
            .links()
            .filter(|link| *link != other && !link.starts_with("docs/zh/"));
        // Headings of the page itself have other names.
        let links = links.map(|link| if link.starts_with('#') { "#" } else { link }.to_owned());
        let mut links: Vec<_> = links.collect();
        links.sort_unstable();
        links
    };
    assert_eq!(links(&chinese, ENGLISH), links(&english, CHINESE));
    assert!(
        english.links().any(|link| link == CHINESE),
        "{CHINESE} is not linked"
    );
    assert!(
        chinese.links().any(|link| link == ENGLISH),
        "{ENGLISH} is not linked"
    );
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages: Vec<PathBuf> = [
        ENGLISH,
        CHINESE,
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ]
    .into_iter()
    .map(PathBuf::from)
    .collect();
    for folder in ["docs", "docs/zh"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    let mut lost = Vec::new();
    for page in &pages {
        let path = page.to_str().unwrap();
        for link in Page::read(path).links() {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = root().join(page.parent().unwrap()).join(file);
            let target = if file.is_empty() {
                root().join(page)
            } else {
                target
            };
            let is_page = target
                .extension()
                .is_some_and(|extension| extension == "md");
            let leads = |fragment: &str| {
                Page::read(target.to_str().unwrap())
                    .anchors()
                    .contains(fragment)
            };
            let is_outside = link.contains("://") || link.starts_with("mailto:");
            if !is_outside
                && !(target.exists() && (fragment.is_empty() || !is_page || leads(fragment)))
            {
                lost.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
}

/// The names of all properties in a part of the API document.
fn properties(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::Object(named)) = members.get("properties") {
                found.extend(named.keys().cloned());
            }
            members
                .values()
                .for_each(|member| properties(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, found)),
        _ => {}
    }
}

#[test]
fn the_chinese_reference_names_every_operation_field_limit_and_code() {
    let document: Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    let components = &document["components"];
    let mut names = BTreeSet::new();
    properties(&document, &mut names);
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            names.insert(format!("{} /api/v1/im{path}", method.to_uppercase()));
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            names
                .extend(parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned()));
        }
    }
    let codes = components["schemas"]["ErrorCode"]["enum"]
        .as_array()
        .unwrap();
    names.extend(codes.iter().map(|code| code.as_str().unwrap().to_owned()));
    names.extend(components["headers"].as_object().unwrap().keys().cloned());
    let settings = read("config/default.toml");
    let limits = settings
        .split("\n[limits]\n")
        .nth(1)
        .unwrap()
        .split("\n[")
        .next()
        .unwrap();
    let keys = limits.lines().filter_map(|line| line.split_once(" = "));
    names.extend(
        keys.filter(|(key, _)| !key.starts_with('#'))
            .map(|(key, _)| format!("limits.{key}")),
    );
    let reference = read(REFERENCE);
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !reference.contains(&format!("`{name}`")))
        .collect();
    assert!(names.len() > 80 && missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_faq_leads_from_clues_that_the_gateway_gives() {
    let mut given = read("docs/METRICS.md") + &read("config/default.toml");
    let mut sources = Vec::new();
    files(&root().join("src"), &mut sources);
    given.extend(
        sources
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap()),
    );
    let page = Page::read(FAQ);
    let (mut questions, mut clues) = (0, 0);
    for line in &page.lines {
        questions += usize::from(line.starts_with("### "));
        let Some(line) = line.strip_prefix("> 线索：") else {
            continue;
        };
        clues += 1;
        for clue in line.split('`').skip(1).step_by(2) {
            assert!(given.contains(clue), "{clue:?} is in no source");
        }
    }
    assert!(
        questions > 20 && questions == clues,
        "{clues} clues to {questions} questions"
    );
}

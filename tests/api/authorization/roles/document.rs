//! docs/AUTHORIZATION.md shows the table as it is run.

use super::table::{Outcome, Role, TABLE};

const BEGIN: &str = "<!-- the role matrix: made from tests/api/authorization/roles/table.rs, which a test compares -->\n";
const END: &str = "<!-- end of the role matrix -->\n";

fn cell(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done => "ok".into(),
        Outcome::Refused(code) => format!("`{code}`"),
        Outcome::RefusedByV3(code) => format!("v2 ok, v3 `{code}`"),
        Outcome::Nobody => "–".into(),
    }
}

fn row(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn printed() -> String {
    let mut text = String::new();
    for (word, rows) in TABLE {
        text.extend(["\n### ", word.title(), "\n\n"]);
        let roles = Role::ALL.map(|role| role.title().to_owned());
        text += &row(std::iter::once(String::new()).chain(roles));
        text.extend(["|---".repeat(1 + Role::ALL.len()).as_str(), "|\n"]);
        for (action, outcomes) in rows {
            let outcomes = outcomes.map(cell);
            text += &row(std::iter::once(action.title().to_owned()).chain(outcomes));
        }
    }
    text + "\n"
}

#[test]
fn the_document_shows_the_table_that_is_run() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/AUTHORIZATION.md");
    let document = std::fs::read_to_string(path).unwrap();
    let written = document
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END))
        .map(|(written, _)| written);
    let printed = printed();
    assert!(
        written == Some(&printed),
        "paste this into docs/AUTHORIZATION.md:\n{BEGIN}{printed}{END}"
    );
}

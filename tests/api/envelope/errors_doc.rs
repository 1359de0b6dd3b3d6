//! docs/ERRORS.md is held to the enum.

use wukongim_gateway::error::{ApiError, Lang};

/// The cells of the document's rows that begin with a code.
fn rows() -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ERRORS.md");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn the_document_has_one_row_a_code_in_the_enums_order() {
    let written: Vec<_> = rows().iter().map(|row| row[..4].join(" | ")).collect();
    let expected: Vec<_> = ApiError::ALL
        .iter()
        .map(|error| {
            let text = error.message();
            let own = if error.status().is_server_error() {
                ["*", "*"]
            } else {
                [text.in_lang(Lang::Zh), text.in_lang(Lang::En)]
            };
            format!(
                "`{}` | {} | {} | {}",
                error.code(),
                error.status().as_u16(),
                own[0],
                own[1]
            )
        })
        .collect();
    assert_eq!(written, expected);
}

#[test]
fn every_row_says_what_a_client_does_and_what_an_operator_looks_at() {
    for row in rows() {
        assert_eq!(row.len(), 6, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn every_code_is_told_once() {
    let codes: std::collections::HashSet<_> =
        ApiError::ALL.iter().map(|error| error.code()).collect();
    assert_eq!(codes.len(), ApiError::ALL.len());
}

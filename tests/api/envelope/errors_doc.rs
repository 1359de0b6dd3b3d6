//! docs/ERRORS.md is made of the enum.

use wukongim_gateway::http::errors::{ApiError, catalogue};

#[test]
fn the_catalogue_in_the_repository_is_the_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ERRORS.md");
    let made = concat!(env!("CARGO_TARGET_TMPDIR"), "/ERRORS.md");
    std::fs::write(made, catalogue()).unwrap();
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == catalogue(),
        "the codes have changed: cp {made} {path}"
    );
}

#[test]
fn every_code_has_a_whole_row_in_the_enums_order() {
    let rows: Vec<Vec<&str>> = catalogue()
        .lines()
        .filter(|line| line.starts_with("| <a"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), ApiError::ALL.len());
    for (row, error) in rows.iter().zip(ApiError::ALL) {
        let code = error.code();
        assert_eq!(row[0], format!("<a id=\"{code}\"></a>`{code}`"));
        assert_eq!(row[1], error.status().as_u16().to_string());
        assert_eq!(row.len(), 6, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn every_code_is_documented_once() {
    let codes: std::collections::HashSet<_> =
        ApiError::ALL.iter().map(|error| error.code()).collect();
    assert_eq!(codes.len(), ApiError::ALL.len());
}

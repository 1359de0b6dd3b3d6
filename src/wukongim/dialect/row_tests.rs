//! What both dialects' readers of conversation rows are held to: serde.

use proptest::prelude::*;
use serde_json::Value;

/// A reader of rows under test.
pub(super) struct RowReader {
    /// A row that it reads.
    pub(super) row: &'static str,
    /// An answer with these rows.
    pub(super) page: fn(&[&str]) -> String,
    /// Whether the reader reads an answer in one pass; panics where it reads another thing than serde does.
    pub(super) agrees: fn(&[u8]) -> bool,
}

impl RowReader {
    /// Every recorded answer to such a request is read in one pass.
    pub(super) fn reads_recorded(&self, recording: &str, is_read: impl Fn(&Value) -> bool) {
        let mut pages = 0;
        for line in recording.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let response = &line["response"];
            if is_read(&line["request"]) && response["status"] == 200 {
                let body = response["body"].as_str().unwrap();
                assert!((self.agrees)(body.as_bytes()), "{body}");
                pages += 1;
            }
        }
        assert!(pages > 50, "{pages}");
    }

    /// Rows with these changes, from and to, are read in one pass or not, whatever rows are before and after them.
    pub(super) fn reads_changed(&self, changes: &[(&str, &str, bool)]) {
        let row = self.row;
        for (from, to, is_read) in changes {
            assert!(row.contains(from), "{from}");
            let changed = row.replacen(from, to, 1);
            for rows in [
                &[&*changed][..],
                &[row, &changed],
                &[&changed, row, row, &changed],
            ] {
                let page = (self.page)(rows);
                assert_eq!((self.agrees)(page.as_bytes()), *is_read, "{page}");
            }
        }
    }

    /// Rows with a changed byte, and a few cut out, are read as serde reads them or not at all.
    pub(super) fn reads_mutated(&self) {
        proptest!(|(index in 0..self.row.len(), byte: u8, cut in 0..40_usize)| {
            let mut bytes = self.row.as_bytes().to_vec();
            bytes[index] = byte;
            bytes.drain(index..(index + cut / 8).min(bytes.len()));
            let bytes = String::from_utf8_lossy(&bytes);
            for rows in [&[&*bytes][..], &[self.row, &bytes], &[&bytes, self.row, &bytes]] {
                (self.agrees)((self.page)(rows).as_bytes());
            }
        });
    }
}

//! v2 keys its storage by a hash with known collisions: whatever an upstream page contains, nothing of another channel leaves the gateway,
//! and nothing is ever written where another channel lies.

mod reading;
mod writing;

use dev_upstream::fnv1a64;

use crate::support::TestApp;

/// A group with the hash of the pair's stored id.
const TWIN: &str = "xbdZAqbat_QtXO";
/// As the pair is stored.
const PAIR: &str = "hc-bob@hc-alice";
/// Two groups with one hash.
const FIRST: &str = "twins-R54o9P90Go-Z";
const SECOND: &str = "twins-Q76Q5J92otdM";

#[test]
fn the_twins_have_equal_hashes() {
    assert_eq!(fnv1a64(&format!("{TWIN}-2")), fnv1a64(&format!("{PAIR}-1")));
    assert_eq!(
        fnv1a64(&format!("{FIRST}-2")),
        fnv1a64(&format!("{SECOND}-2"))
    );
}

/// What `gateway_foreign_messages_dropped_total` says.
fn dropped(app: &TestApp) -> u64 {
    let name = "gateway_foreign_messages_dropped_total ";
    let metrics = app.app.metrics.render();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    value
        .expect("the metric is there")
        .parse()
        .expect("a number")
}

//! Fetching under a paused clock.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::auth::test_keys::{ED_ONE, RSA_ONE, key_set};

/// An in-memory issuer that counts its fetches.
#[derive(Clone)]
pub(in crate::auth) struct Issuer(Arc<Inner>);

struct Inner {
    answer: Mutex<Result<Bytes, FetchError>>,
    supports: Mutex<Duration>,
    fetches: AtomicUsize,
    at_once: AtomicUsize,
}

impl Issuer {
    pub(in crate::auth) fn new(keys: &[serde_json::Value]) -> Self {
        Self(Arc::new(Inner {
            answer: Mutex::new(Ok(key_set(keys).into())),
            supports: Mutex::new(Duration::ZERO),
            fetches: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
        }))
    }

    pub(in crate::auth) fn publishes(&self, keys: &[serde_json::Value]) {
        self.answers(Ok(key_set(keys).into()));
    }

    pub(in crate::auth) fn answers(&self, answer: Result<Bytes, FetchError>) {
        *self.0.answer.lock() = answer;
    }

    pub(in crate::auth) fn is_down(&self) {
        self.answers(Err(FetchError::Connect));
    }

    fn supports(&self, time: Duration) {
        *self.0.supports.lock() = time;
    }

    pub(in crate::auth) fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::SeqCst)
    }
}

impl Source for Issuer {
    async fn fetch(&self) -> Result<Bytes, FetchError> {
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        let others = self.0.at_once.fetch_add(1, Ordering::SeqCst);
        assert_eq!(others, 0, "two fetches at once");
        let supports = *self.0.supports.lock();
        tokio::time::sleep(supports).await;
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
        self.0.answer.lock().clone()
    }
}

const REFRESH: Duration = Duration::from_mins(5);

fn start(issuer: &Issuer) -> Jwks {
    Jwks::start(issuer.clone(), REFRESH, Vec::new(), Arc::default())
}

/// Waits without a practical deadline.
async fn refreshed(jwks: &Jwks) -> Result<Arc<Published>, Unavailable> {
    jwks.refreshed(Instant::now() + Duration::from_hours(1))
        .await
}

/// Advances the clock and runs everything that is due.
pub(in crate::auth) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

const SECOND: Duration = Duration::from_secs(1);
const BLINK: Duration = Duration::from_millis(1);

fn kids(published: &Published) -> Vec<&str> {
    let keys = published.keys.iter();
    keys.map(|key| key.kid.as_deref().unwrap_or("-")).collect()
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_at_the_start_and_then_in_time() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    let jwks = start(&issuer);
    assert!(!jwks.ever_loaded());
    pass(BLINK).await;
    assert!(jwks.ever_loaded());
    assert_eq!((issuer.fetches(), kids(&jwks.published())), (1, vec!["a"]));
    pass(REFRESH).await;
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_is_gone_within_the_refresh_however_slow_the_issuer_answers() {
    for takes_s in [0, 4] {
        let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a")), ED_ONE.jwk(Some("b"))]);
        issuer.supports(Duration::from_secs(takes_s));
        let jwks = start(&issuer);
        pass(Duration::from_secs(takes_s) + BLINK).await;
        assert_eq!(kids(&jwks.published()), ["a", "b"]);
        issuer.publishes(&[ED_ONE.jwk(Some("b"))]);
        pass(REFRESH).await;
        assert_eq!(kids(&jwks.published()), ["b"], "{takes_s}");
    }
}

#[tokio::test(start_paused = true)]
async fn old_keys_stay_while_the_issuer_is_down_for_an_hour() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    let jwks = start(&issuer);
    pass(BLINK).await;
    issuer.is_down();
    pass(Duration::from_hours(1)).await;
    assert_eq!(kids(&jwks.published()), ["a"]);
    assert_eq!(refreshed(&jwks).await.err(), Some(Unavailable));
    // Asked for again and again, but never more often than the gap allows.
    assert!(
        (300..=360).contains(&issuer.fetches()),
        "{}",
        issuer.fetches()
    );
    issuer.publishes(&[ED_ONE.jwk(Some("b"))]);
    pass(MIN_REFRESH_GAP).await;
    assert_eq!(kids(&jwks.published()), ["b"]);
    assert!(refreshed(&jwks).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_document_that_cannot_be_read_changes_nothing() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    let jwks = start(&issuer);
    pass(BLINK).await;
    // A key of a kind that is not understood, and a secret, which is none that may be published.
    let unusable = r#"{"keys":[{"kty":"EC","crv":"secp256k1"},{"kty":"oct","k":"c2VjcmV0"}]}"#;
    for broken in [
        "",
        "{",
        "[]",
        "{\"keys\":{}}",
        "{\"key\":[]}",
        "<html>",
        "{\"keys\":[]}",
        unusable,
    ] {
        issuer.answers(Ok(broken.into()));
        pass(REFRESH).await;
        assert_eq!(kids(&jwks.published()), ["a"], "{broken}");
        assert_eq!(refreshed(&jwks).await.err(), Some(Unavailable), "{broken}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_share_one_fetch_and_their_number_is_bounded() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    let jwks = Arc::new(start(&issuer));
    pass(MIN_REFRESH_GAP + BLINK).await;
    issuer.supports(2 * SECOND);
    issuer.publishes(&[RSA_ONE.jwk(Some("a")), ED_ONE.jwk(Some("b"))]);
    let ask = |after: Duration| {
        let jwks = jwks.clone();
        tokio::spawn(async move {
            pass(after).await;
            refreshed(&jwks).await.map(|now| kids(&now).join(","))
        })
    };
    let asking: Vec<_> = (0..MAX_WAITERS as u64)
        .map(|index| ask(Duration::from_millis(index * 10)))
        .collect();
    pass(SECOND).await;
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(refreshed(&jwks).await.err(), Some(Unavailable));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    // A caller that disconnects frees its permit.
    asking[0].abort();
    pass(BLINK).await;
    let late = ask(Duration::ZERO);
    for asked in asking.into_iter().skip(1).chain([late]) {
        assert_eq!(asked.await.unwrap(), Ok("a,b".to_owned()));
    }
    assert_eq!(issuer.fetches(), 2);
    // The places are free again.
    pass(MIN_REFRESH_GAP).await;
    assert!(refreshed(&jwks).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn there_is_one_fetch_in_ten_seconds_for_all_callers() {
    for down in [false, true] {
        let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
        let jwks = start(&issuer);
        pass(BLINK).await;
        if down {
            issuer.is_down();
        }
        for _ in 0..1_000 {
            drop(refreshed(&jwks).await);
            pass(Duration::from_millis(100)).await;
        }
        // 100 seconds: the one at the start and ten more.
        assert!(
            (10..=11).contains(&issuer.fetches()),
            "{}",
            issuer.fetches()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_before_the_first_fetch_waits_for_it() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    issuer.supports(3 * SECOND);
    let jwks = start(&issuer);
    let result = refreshed(&jwks).await.map(|now| kids(&now).join(","));
    assert_eq!((result, issuer.fetches()), (Ok("a".to_owned()), 1));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_issuer_times_out_for_all_waiting_callers() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    issuer.supports(Duration::from_hours(1));
    let jwks = start(&issuer);
    let began = Instant::now();
    assert_eq!(refreshed(&jwks).await.err(), Some(Unavailable));
    assert_eq!(began.elapsed(), FETCH_TIMEOUT);
    assert!(!jwks.ever_loaded());
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_at_most_until_its_deadline() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    issuer.supports(3 * SECOND);
    let jwks = start(&issuer);
    let began = Instant::now();
    for wait in [Duration::ZERO, 2 * SECOND] {
        let result = jwks.refreshed(Instant::now() + wait).await;
        assert_eq!(result.err(), Some(Unavailable));
    }
    assert_eq!(began.elapsed(), 2 * SECOND);
    let result = jwks.refreshed(Instant::now() + 2 * SECOND);
    assert!(result.await.is_ok());
    assert_eq!((began.elapsed(), issuer.fetches()), (3 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn a_set_without_a_usable_key_is_a_failed_fetch_in_every_respect() {
    let metrics = Arc::new(Metrics::new());
    let issuer = Issuer::new(&[]);
    let jwks = Jwks::start(issuer.clone(), REFRESH, Vec::new(), metrics.clone());
    assert_eq!(refreshed(&jwks).await.err(), Some(Unavailable));
    assert!(!jwks.ever_loaded());
    // Tried again as after any failure, and not only in time.
    issuer.publishes(&[RSA_ONE.jwk(Some("a"))]);
    pass(MIN_REFRESH_GAP + BLINK).await;
    let version = jwks.published().version;
    assert!(jwks.ever_loaded());
    issuer.publishes(&[]);
    pass(REFRESH).await;
    assert_eq!(kids(&jwks.published()), ["a"], "no user is logged out");
    assert_eq!(jwks.published().version, version);
    assert_eq!(refreshed(&jwks).await.err(), Some(Unavailable));
    let text = metrics.render();
    assert!(text.contains("gateway_jwks_keys 1"), "{text}");
    let counted = "gateway_jwks_fetches_total{outcome=\"no_key\"} ";
    assert!(text.contains(counted), "{text}");
    issuer.publishes(&[ED_ONE.jwk(Some("b"))]);
    pass(MIN_REFRESH_GAP + BLINK).await;
    assert_eq!(
        kids(&jwks.published()),
        ["b"],
        "the last one is withdrawn by another"
    );
}

#[tokio::test(start_paused = true)]
async fn a_byte_order_mark_before_the_document_is_skipped() {
    let issuer = Issuer::new(&[]);
    let document = format!("\u{feff}{}", key_set(&[RSA_ONE.jwk(Some("a"))]));
    issuer.answers(Ok(document.into()));
    let jwks = start(&issuer);
    pass(BLINK).await;
    assert_eq!(kids(&jwks.published()), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_version_changes_with_the_keys_alone() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    let jwks = start(&issuer);
    pass(BLINK).await;
    let first = jwks.published().version;
    pass(REFRESH * 3).await;
    assert_eq!(jwks.published().version, first);
    issuer.publishes(&[RSA_ONE.jwk(Some("b"))]);
    pass(REFRESH).await;
    assert_ne!(jwks.published().version, first);
}

#[tokio::test(start_paused = true)]
async fn fetching_ends_with_the_last_holder() {
    let issuer = Issuer::new(&[RSA_ONE.jwk(Some("a"))]);
    let jwks = start(&issuer);
    pass(BLINK).await;
    drop(jwks);
    pass(Duration::from_hours(1)).await;
    assert_eq!(issuer.fetches(), 1);
}

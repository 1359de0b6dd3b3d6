//! The cache's guarantees, tested with lookups that wait for a signal.

use std::sync::atomic::AtomicUsize;

use http::HeaderValue;
use tokio::sync::Semaphore;

use super::*;
use crate::context::{current_request_id, with_request_id};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    value: u32,
    memberships: usize,
    is_final: bool,
}

impl Found {
    fn new(value: u32) -> Self {
        Self {
            value,
            memberships: 0,
            is_final: false,
        }
    }
}

impl Fact for Found {
    fn memberships(&self) -> usize {
        self.memberships
    }

    fn is_final(&self) -> bool {
        self.is_final
    }
}

impl CacheKey for &'static str {
    fn invalidation_id(&self) -> &str {
        self
    }
}

type Cached = Arc<FactCache<&'static str, Found, &'static str>>;

const LONG: Duration = Duration::from_mins(10);

fn new_cache(ttl: Duration, memberships: usize) -> Cached {
    FactCache::new(
        "members",
        ttl,
        memberships,
        "lost",
        Arc::new(Metrics::new()),
    )
}

/// Answers each lookup with its sequence number, after a signal.
struct Source {
    begun: AtomicUsize,
    go: Semaphore,
}

impl Source {
    fn held() -> Arc<Self> {
        Arc::new(Self {
            begun: AtomicUsize::new(0),
            go: Semaphore::new(0),
        })
    }

    async fn find(self: Arc<Self>) -> Result<Found, &'static str> {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.go.acquire().await.unwrap().forget();
        Ok(Found::new(u32::try_from(number).unwrap()))
    }

    async fn wait_begun(&self, count: usize) {
        while self.begun.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
}

fn ask(
    cache: &Cached,
    source: &Arc<Source>,
) -> tokio::task::JoinHandle<Result<Found, &'static str>> {
    let (cache, source) = (Arc::clone(cache), Arc::clone(source));
    tokio::spawn(async move { cache.get(&"k", || source.find()).await })
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

async fn ok(cache: &Cached, key: &'static str, value: u32) -> u32 {
    let found = cache.get(&key, || async move { Ok(Found::new(value)) });
    found.await.unwrap().value
}

#[tokio::test]
async fn concurrent_callers_share_one_lookup() {
    let (cache, source) = (new_cache(LONG, 1000), Source::held());
    let lookups: Vec<_> = (0..20).map(|_| ask(&cache, &source)).collect();
    settle().await;
    source.go.add_permits(1);
    for answer in lookups {
        assert_eq!(answer.await.unwrap().unwrap().value, 1);
    }
    assert_eq!(source.begun.load(Ordering::SeqCst), 1);
    assert!(cache.flights.lock().is_empty());
    assert_eq!(ok(&cache, "k", 9).await, 1, "kept");
}

#[tokio::test]
async fn a_cancelled_caller_does_not_cancel_the_lookup() {
    let (cache, source) = (new_cache(LONG, 1000), Source::held());
    let first = ask(&cache, &source);
    source.wait_begun(1).await;
    let second = ask(&cache, &source);
    settle().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    source.go.add_permits(1);
    assert_eq!(second.await.unwrap().unwrap().value, 1);
}

#[tokio::test]
async fn a_failure_answers_all_waiting_callers_and_is_not_cached() {
    let cache = new_cache(LONG, 1000);
    let gate = Arc::new(Semaphore::new(0));
    let lookups: Vec<_> = (0..3)
        .map(|_| {
            let (cache, gate) = (Arc::clone(&cache), Arc::clone(&gate));
            tokio::spawn(async move {
                let look_up = || async move {
                    gate.acquire().await.unwrap().forget();
                    Err("down")
                };
                cache.get(&"k", look_up).await
            })
        })
        .collect();
    settle().await;
    gate.add_permits(1);
    for answer in lookups {
        assert_eq!(answer.await.unwrap(), Err("down"));
    }
    assert_eq!(ok(&cache, "k", 7).await, 7);
}

#[tokio::test]
async fn a_lookup_that_panics_fails_and_the_next_one_runs() {
    let cache = new_cache(LONG, 1000);
    let answer = cache.get(&"k", || async { panic!("a bug") }).await;
    assert_eq!(answer, Err("lost"));
    assert!(cache.flights.lock().is_empty());
    assert_eq!(ok(&cache, "k", 7).await, 7);
}

#[tokio::test]
async fn a_lookup_that_began_before_a_change_is_neither_cached_nor_joined() {
    let (cache, source) = (new_cache(LONG, 1000), Source::held());
    let before = ask(&cache, &source);
    source.wait_begun(1).await;
    cache.invalidate("k");
    let after = ask(&cache, &source);
    source.wait_begun(2).await;
    source.go.add_permits(1);
    assert_eq!(before.await.unwrap().unwrap().value, 1);
    assert_eq!(cache.cached(&"k"), None);
    // The end of the old lookup must not remove the new one.
    let joins = ask(&cache, &source);
    settle().await;
    source.go.add_permits(1);
    assert_eq!(after.await.unwrap().unwrap().value, 2);
    assert_eq!(joins.await.unwrap().unwrap().value, 2);
    assert_eq!(ok(&cache, "k", 9).await, 2, "the new one is kept");
}

#[tokio::test]
async fn an_entry_with_an_older_version_is_not_used() {
    let cache = new_cache(LONG, 1000);
    let version = cache.version(&"k");
    cache.invalidate("k");
    cache.store(&"k", Found::new(1), version, Instant::now());
    assert_eq!(cache.cached(&"k"), None);
}

#[tokio::test]
async fn age_is_counted_from_the_beginning_of_the_lookup() {
    let ttl = Duration::from_millis(40);
    let cache = new_cache(ttl, 1000);
    let slow = || async move {
        tokio::time::sleep(ttl).await;
        Ok(Found::new(1))
    };
    assert_eq!(cache.get(&"k", slow).await.unwrap().value, 1);
    assert_eq!(cache.cached(&"k"), None, "as old as it may get");
    assert_eq!(ok(&cache, "k", 2).await, 2);
    assert_eq!(cache.cached(&"k"), Some(Found::new(2)));
    tokio::time::sleep(ttl).await;
    assert_eq!(cache.cached(&"k"), None);
}

#[tokio::test]
async fn final_facts_outlive_ttl_and_changes() {
    let cache = new_cache(Duration::ZERO, 1000);
    let yes = Found {
        is_final: true,
        ..Found::new(1)
    };
    let source = Source::held();
    let running = ask(&cache, &source);
    source.wait_begun(1).await;
    cache.set(&"k", yes.clone());
    source.go.add_permits(1);
    running.await.unwrap().unwrap();
    assert_eq!(cache.cached(&"k"), Some(yes.clone()));
    // Another id may share the counter.
    cache
        .versions
        .of("k")
        .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(cache.cached(&"k"), Some(yes));
}

#[tokio::test]
async fn the_cached_memberships_are_bounded() {
    let cache = new_cache(LONG, 4000);
    let keys: Vec<&'static str> = (0..200)
        .map(|n| &*Box::leak(format!("k{n}").into_boxed_str()))
        .collect();
    for key in &keys {
        let found = Found {
            memberships: 100,
            ..Found::new(1)
        };
        cache.get(key, || async { Ok(found) }).await.unwrap();
    }
    assert!(cache.entries.weight() <= 4000, "{}", cache.entries.weight());
    assert!(cache.entries.len() > 20, "{}", cache.entries.len());
    let huge = Found {
        memberships: 5000,
        ..Found::new(2)
    };
    let answer = cache.get(&"huge", || async { Ok(huge) }).await;
    assert_eq!(answer.unwrap().value, 2, "too large to keep is answered");
    assert_eq!(cache.cached(&"huge"), None);
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_may_be() {
    let cache = new_cache(LONG, 0);
    assert_eq!(ok(&cache, "k", 1).await, 1);
    assert_eq!(ok(&cache, "k", 2).await, 2);
}

#[tokio::test]
async fn a_lookup_carries_the_request_id_of_its_first_caller() {
    let cache = new_cache(LONG, 1000);
    let id = HeaderValue::from_static("r-1");
    let seen = Arc::new(Mutex::new(None));
    let recorded = Arc::clone(&seen);
    let look_up = || async move {
        *recorded.lock() = current_request_id();
        Ok(Found::new(1))
    };
    let answer = with_request_id(id.clone(), cache.get(&"k", look_up)).await;
    assert!(answer.is_ok());
    assert_eq!(*seen.lock(), Some(id));
}

#[tokio::test]
async fn of_several_facts_only_those_missing_are_looked_up_and_none_across_a_change() {
    let cache = new_cache(LONG, 1000);
    assert_eq!(ok(&cache, "b", 2).await, 2);
    let all = async |values: Result<&[u32], &'static str>, wanted: &[&'static str]| {
        let look_up = async |missing: &[&'static str]| -> Result<Vec<Found>, &'static str> {
            assert_eq!(missing, wanted);
            // A change of one of them meanwhile.
            cache.invalidate("c");
            Ok(values?.iter().map(|value| Found::new(*value)).collect())
        };
        let keys = ["a", "b", "c"];
        let key = |text: &str| keys.into_iter().find(|key| *key == text);
        let found = cache
            .get_all(&["a", "b", "none", "c"], key, look_up)
            .await?;
        assert!(found[2].is_none());
        let values: Vec<u32> = found.iter().flatten().map(|found| found.value).collect();
        Ok::<_, &'static str>(values)
    };
    assert_eq!(all(Err("failed"), &["a", "c"]).await, Err("failed"));
    assert_eq!(all(Ok(&[1, 3]), &["a", "c"]).await, Ok(vec![1, 2, 3]));
    assert_eq!(all(Ok(&[4]), &["c"]).await, Ok(vec![1, 2, 4]));
    assert_eq!(ok(&cache, "a", 9).await, 1);
    assert_eq!(ok(&cache, "c", 9).await, 9);
}

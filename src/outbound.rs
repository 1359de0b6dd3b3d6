//! How the gateway calls anybody: what is configured is what is called. Knows no callee; pools and deadlines are each caller's own.

/// A client through no proxy of the environment, after no redirect, that repeats nothing by itself and tells nobody where it came
/// from. Without deadlines.
pub fn client() -> reqwest::ClientBuilder {
    #[expect(clippy::disallowed_methods, reason = "here is where it is made")]
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
}

//! How the gateway calls anybody: what is configured is what is called. Knows no callee; pools and deadlines are each caller's own.

use std::error::Error as _;

use url::Url;

/// [`client`] for these addresses. Where none of them is https it works without the system's CA certificates, which a minimal image
/// may lack.
pub fn client_for<'a>(addresses: impl IntoIterator<Item = &'a Url>) -> reqwest::ClientBuilder {
    if addresses.into_iter().any(|url| url.scheme() == "https") {
        client()
    } else {
        client().tls_certs_only([])
    }
}

/// What is missing for calls over https, where something is: CA certificates.
pub fn https_problem() -> Option<String> {
    let error = client().build().err()?;
    Some(
        error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string),
    )
}

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

//! The base of all outgoing HTTP clients: only the configured address is called. Pools and deadlines are the callers' own.

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

/// A client that ignores the environment's proxies, follows no redirect, retries nothing and sends no `Referer`. It has no deadlines.
pub fn client() -> reqwest::ClientBuilder {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that builds clients"
    )]
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
}

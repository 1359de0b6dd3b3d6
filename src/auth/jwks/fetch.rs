//! Fetches the key document over HTTP, bounded in size. The deadline is the caller's.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::ACCEPT;
use url::Url;

use super::{FetchError, Source};
use crate::http_client;

/// Maximum size of the document, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// An issuer's `jwks_uri`.
pub(in crate::auth) struct HttpSource {
    url: Url,
    http: reqwest::Client,
}

impl HttpSource {
    /// The document at `url`, whose user and password are sent as basic authentication.
    pub(in crate::auth) fn new(url: Url) -> Result<Self, reqwest::Error> {
        // No connection is kept, since fetches are minutes apart.
        let http = http_client::client_for([&url])
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { url, http })
    }
}

impl Source for HttpSource {
    async fn fetch(&self) -> Result<Bytes, FetchError> {
        let request = self
            .http
            .get(self.url.clone())
            .header(ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(|error| {
            if error.is_connect() {
                FetchError::Connect
            } else {
                FetchError::Lost
            }
        })?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut document = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| FetchError::Lost)? {
            if document.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge(MAX_BYTES));
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document.freeze())
    }
}

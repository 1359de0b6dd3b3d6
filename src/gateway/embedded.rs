//! `--embedded`: starts the development upstream and makes the settings point to it, as to any WuKongIM. Only this file knows it.

#[cfg(feature = "embedded")]
use dev_upstream::{DevUpstream, Dialect, Options};

#[cfg(feature = "embedded")]
use crate::config::HttpUrl;
use crate::config::{Generation, Settings};

use super::ServeError;

/// What is returned has to be held for as long as the gateway runs.
#[cfg(feature = "embedded")]
pub(super) async fn start(
    generation: Option<Generation>,
    settings: &mut Settings,
) -> Result<Option<DevUpstream>, ServeError> {
    let Some(generation) = generation else {
        return Ok(None);
    };
    let dialect = match generation {
        Generation::V2 => Dialect::V2,
        Generation::V3 => Dialect::V3,
    };
    let options = Options::development(dialect);
    let manager = options.manager.clone();
    let started = DevUpstream::start(options).await;
    let upstream = started.map_err(|error| {
        ServeError::Unavailable(format!("cannot start the built-in upstream: {error}"))
    })?;
    let address = |url: String| -> Result<HttpUrl, ServeError> {
        url.parse().map_err(|_| {
            ServeError::Internal("the built-in upstream has no usable address".to_owned())
        })
    };
    let wukongim = &mut settings.wukongim;
    wukongim.api_urls = vec![address(upstream.url())?];
    wukongim.version = Some(generation);
    wukongim.manager_token = None;
    wukongim.tcp_addrs = Vec::new();
    // v3 only: v2 has no such port, and the gateway does without.
    wukongim.manager_url = upstream.manager_url().map(address).transpose()?;
    (wukongim.manager_username, wukongim.manager_password) = match manager {
        Some((username, password)) => (Some(username), Some(password.into())),
        None => (None, None),
    };
    settings.has_chat_page = settings.socket.enabled;
    Ok(Some(upstream))
}

/// Refuses: this build has none.
#[cfg(not(feature = "embedded"))]
pub(super) fn start(
    generation: Option<Generation>,
    _: &mut Settings,
) -> impl Future<Output = Result<Option<std::convert::Infallible>, ServeError>> {
    std::future::ready(match generation {
        None => Ok(None),
        Some(_) => Err(ServeError::Unsupported(
            "--embedded: this binary is built without the feature `embedded`",
        )),
    })
}

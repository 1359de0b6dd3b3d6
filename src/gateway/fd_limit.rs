//! File descriptors: each connection needs one, each socket two, and the default soft limit is often too low.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Settings;

/// Descriptors for other uses: connections to WuKongIM, the store, the log, and connections being refused.
const RESERVED_DESCRIPTORS: u64 = 2048;

/// Raises the soft limit to what all connections and sockets need, as far as the system allows, and warns where that is too low.
pub(super) fn raise_limit(settings: &Settings) {
    let socket = &settings.socket;
    let sockets = if socket.enabled {
        socket.max_connections
    } else {
        0
    };
    let needed = (settings.server.max_connections + 2 * sockets) as u64 + RESERVED_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current else { return };
    let raised = limit.maximum.unwrap_or(needed).min(needed).max(current);
    let wanted = Rlimit {
        current: Some(raised),
        ..limit
    };
    let allowed = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => raised,
        Err(_) => current,
    };
    if allowed < needed {
        tracing::warn!(
            files.allowed = allowed,
            files.needed = needed,
            "fewer open files are allowed than server.max_connections and socket.max_connections need"
        );
    }
}

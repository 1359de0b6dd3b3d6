//! File descriptors: each connection needs one, and systems allow few unless asked.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Those for WuKongIM's connections, the store, the log, and what is being refused.
const BESIDES: u64 = 2048;

/// Raises this process's own limit as far as `connections` need and the system lets it, and says so in the log where that is too few.
pub(super) fn allow(connections: usize) {
    let needed = connections as u64 + BESIDES;
    let limit = getrlimit(Resource::Nofile);
    let (Some(current), most) = (limit.current, limit.maximum) else {
        return;
    };
    if current >= needed {
        return;
    }
    let raised = most.map_or(needed, |most| most.min(needed));
    let wanted = Rlimit {
        current: Some(raised),
        maximum: most,
    };
    let allowed = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => raised,
        Err(_) => current,
    };
    if allowed < needed {
        tracing::warn!(
            files.allowed = allowed,
            files.needed = needed,
            "fewer open files are allowed than server.max_connections needs"
        );
    }
}

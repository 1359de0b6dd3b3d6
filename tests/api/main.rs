//! The whole API through a real listener, on the embedded upstream in both dialects.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "tests")]

mod messages_send;
mod support;

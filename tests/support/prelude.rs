//! What nearly every test of the API uses, for `use crate::support::prelude::*`: the harness's own words, and those of JSON, time and the
//! built-in upstream. What fewer tests need is imported by its own path.

pub use std::time::Duration;

pub use dev_upstream::{DevUpstream, Dialect, Fault, GROUP, Options, PERSON, Rule};
pub use futures_util::future::join_all;
pub use serde_json::{Value, json};

pub use super::actors::{Actor, payload, sign};
pub use super::answer::{Answer, all_ok, failure, shows};
pub use super::app::TestApp;
pub use super::backend::{Backend, Reply};
pub use super::messages::{as_user, message, numbered, stored, until};
pub use super::seeds::{self, page};
pub use super::{V2, V3};

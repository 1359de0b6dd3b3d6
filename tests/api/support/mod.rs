//! The harness: a real gateway on a real listener, in front of the built-in upstream.

pub mod actors;
pub mod answer;
pub mod app;
pub mod audit;
pub mod backend;
#[path = "../../support/database.rs"]
pub mod database;
pub mod document;
pub mod issuer;
#[path = "../../support/line.rs"]
pub mod line;
pub mod messages;
pub mod seeds;

pub use app::TestApp;
pub use dev_upstream::Dialect::{V2, V3};

//! The harness: a real gateway on a real listener, in front of the embedded upstream.

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
pub use wukongim_gateway::embedded::Dialect::{V2, V3};

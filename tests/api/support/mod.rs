//! The harness: a real gateway on a real listener, in front of the embedded upstream.

pub mod actors;
pub mod answer;
pub mod app;
pub mod backend;
pub mod messages;
pub mod seeds;

pub use app::TestApp;
pub use wukongim_gateway::embedded::Dialect::{V2, V3};

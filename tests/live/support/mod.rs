//! The harness: a real gateway on a real listener, in front of a real WuKongIM.

#[allow(dead_code, reason = "shared with the API tests, which use all of it")]
#[path = "../../api/support/actors.rs"]
pub mod actors;
#[allow(dead_code, reason = "shared with the API tests, which use all of it")]
#[path = "../../api/support/answer.rs"]
pub mod answer;
pub mod app;
#[path = "../../api/support/document.rs"]
pub mod document;
pub mod server;

pub use app::TestApp;
pub use server::{Kind, each_server};

//! `POST /channel/create`, `/delete`, `/subscriber/add` and `/subscriber/remove`.

mod create;
mod delete;
pub mod store_down;
mod subscribers;
mod validation;

use wukongim_gateway::embedded::Dialect;

use crate::support::{TestApp, V2, V3};

/// What groups behave differently on: v2, v3 alone, and v3 with its manager port.
const KINDS: [(Dialect, bool); 3] = [(V2, false), (V3, false), (V3, true)];

async fn start((dialect, manager): (Dialect, bool)) -> TestApp {
    let builder = TestApp::builder().upstream(dialect);
    if manager {
        builder.manager_port().start().await
    } else {
        builder.start().await
    }
}

//! Serving. A place holder: the accept loops come with the router.

use std::process::ExitCode;

use crate::config::{Generation, Loaded};

/// Serves until told to stop. `embedded` starts the development upstream of that generation and uses it.
#[expect(clippy::unused_async, reason = "a place holder")]
pub async fn serve(loaded: Loaded, embedded: Option<Generation>) -> ExitCode {
    drop((loaded, embedded));
    ExitCode::SUCCESS
}

//! Arguments → settings → serve.

use std::process::ExitCode;

use wukongim_gateway::cli;
use wukongim_gateway::config::{Generation, Loaded};
use wukongim_gateway::gateway::{self, ServeError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(invocation) => cli::run(invocation, serve),
        Err(code) => code,
    }
}

fn serve(loaded: Loaded, embedded: Option<Generation>) -> Result<(), ServeError> {
    // This runtime runs process-wide and background work. Requests are served by one worker thread per core, see `gateway`.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ServeError::Internal(format!("cannot start threads: {error}")))?;
    let served = runtime.block_on(gateway::serve(loaded, embedded, cli::introduce));
    // Does not wait for blocked threads, such as a name lookup or a hanging file.
    runtime.shutdown_background();
    served
}

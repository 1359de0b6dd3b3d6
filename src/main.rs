//! Arguments → settings → serve.

use std::process::ExitCode;

use wukongim_gateway::config::{Generation, Loaded};
use wukongim_gateway::{cli, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(invocation) => cli::run(invocation, serve),
        Err(code) => code,
    }
}

fn serve(loaded: Loaded, embedded: Option<Generation>) -> ExitCode {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = loaded.settings.server.worker_threads {
        runtime.worker_threads(threads);
    }
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(server::serve(loaded, embedded)),
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            ExitCode::from(cli::EXIT_INTERNAL)
        }
    }
}

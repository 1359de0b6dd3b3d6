//! Whatever happens, a client of the prefix reads an envelope with a request id.

pub mod endpoints;
mod errors_doc;
mod leaks;
mod reference;
mod routing;
mod server_errors;
mod snapshots;

//! The listener under attack, by raw sockets: each test has its time bound, and leaves the next good request untouched.

mod bodies;
mod heads;
mod http2;
mod smuggling;
pub mod socket;
mod times;

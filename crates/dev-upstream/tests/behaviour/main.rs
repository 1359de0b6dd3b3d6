//! The stand-in against the recordings of real servers, and its own promises: faults, quirks, deaths.

mod collision;
mod conversations;
mod faults;
mod lifecycle;
mod replay;
mod support;
mod v2;
mod v3;

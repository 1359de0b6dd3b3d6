//! The wire formats: paths, bodies and the meaning of answers, by generation. Does not know which node is called, or when again.

pub(super) mod manager_port;
#[cfg(test)]
mod row_tests;
pub(super) mod v2;
pub(super) mod v3;

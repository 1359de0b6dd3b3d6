//! The API's side of HTTP: the envelope, errors and their codes, authentication, extractors, and the OpenAPI document. Knows no route.

pub mod authenticate;
pub mod envelope;
pub mod errors;
pub mod extract;
mod failures;
pub mod openapi;

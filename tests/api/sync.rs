//! `GET /message/sync`: which messages come, in which order, and what is said of each.

mod content;
mod page_bytes;
mod paging;
mod positions;

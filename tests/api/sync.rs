//! `GET /message/sync`: the returned messages, their order and their fields.

mod content;
mod page_bytes;
mod paging;
mod positions;

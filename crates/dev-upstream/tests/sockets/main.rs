//! The sockets for clients in both dialects: who is let in, who may send, who gets what, and how a real server was seen to end.

mod client;
mod connecting;
mod controls;
mod delivery;
mod ends;
mod sending;
mod server;

//! Connections: accepted, secured by TLS, counted, kept alive, ended. Called by the server and the
//! API. Knows no protocol above HTTP/2's frames and no tokens.

pub(crate) mod activity;
pub mod connection;
mod handshake;
pub mod inline;
pub mod keepalive;
pub mod listener;
mod socket;
pub mod tls;
mod unauthenticated;

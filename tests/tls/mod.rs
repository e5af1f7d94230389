//! TLS from outside: the server's certificate and its renewal, callers with client certificates,
//! and connections to Postgres over TLS. All certificates are real, created by the tests.

pub(crate) mod authority;
mod certificates;
mod handshakes;
mod postgres;
mod renewal;

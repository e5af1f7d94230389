//! Authentication: from a bearer secret or a client certificate to a caller. Called by the API for
//! every call. Knows no messages and no SQL; the engine judges the secret.

pub mod callers;
pub mod links;
pub mod logins;
pub mod peer;
pub mod sessions;
mod throttle;

//! The HTTP listener: metrics, probes, and the protocols of gateways and standard clients, one file each.
//! Built by the server. No protocol decides by itself, and none answers "no" where the result is not known.

pub(crate) mod client_address;
pub mod config;
pub(crate) mod connections;
pub(crate) mod form;
pub(crate) mod forward_auth;
pub(crate) mod gate;
pub mod identity;
pub mod integrations;
mod introspection;
pub(crate) mod limit_headers;
pub mod listener;
pub(crate) mod presented;
pub(crate) mod refusal;
mod revocation;
mod router;
pub mod token_review;

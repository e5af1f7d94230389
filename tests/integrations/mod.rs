//! The integrations besides the RPCs, from outside: each alone, all of them compared with Verify,
//! and behind the real gateways that they are for.

mod asking;
mod browser;
mod checks;
mod envoy;
mod ext_authz;
mod forward_auth;
mod gateways;
mod grpc_web;
mod inputs;
mod introspection;
mod leaks;
mod limits;
mod oauth;
mod parity;
mod program;
mod revocation;
mod rpcs;
mod rust_client;
mod together;
mod token_review;

//! What tokens depend on while keys change: rotation, loss, the durable verifier, and the schema
//! that all replicas share.

mod fallback;
mod locks;
mod logical;
mod rotation;
mod schema;
mod upgrade;

//! The console: the pages on which a person creates, lists and revokes tokens, on a listener of their own. Built
//! by the server. Every request has a caller, and the actions decide what it may do, as for an RPC. Pages are
//! rendered here, work without JavaScript, and store no state on the replica. Knows no SQL.

mod assets;
mod audit;
mod commands;
mod failure;
mod find;
mod form;
mod guard;
mod interface;
pub mod listener;
mod missing;
mod moments;
mod owners;
mod pages;
mod policy;
mod session;
mod site;
mod streams;
mod tokens;
mod usage;
mod users;

pub use interface::Console;
pub use site::Site;
pub use streams::Streams;

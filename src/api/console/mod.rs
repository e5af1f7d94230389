//! The console: the pages on which a person creates, lists and revokes tokens, on a listener of their own. Built
//! by the server. Every request is a caller's: the use cases decide what it may do, as for an RPC. Pages are
//! rendered here, work without script, and keep nothing. Knows no SQL.

mod assets;
mod created;
mod failure;
mod form;
mod gate;
mod guard;
mod interface;
mod list;
mod list_query;
pub mod listener;
mod missing;
mod moments;
mod new;
mod new_form;
mod pages;
mod proof;
mod revoke;
mod sign_in;
mod site;
mod token;
mod visit;

pub use interface::Console;
pub use site::Site;

//! What runs beside the requests: one file a job. Started by the server, which also ends them. A job that
//! fails logs why and goes on.

pub mod last_use;
pub mod purge;
pub mod reload;
pub mod retention;
pub mod seal;

//! Background jobs: one file per job. Started and stopped by the server. A job that fails logs the
//! reason and continues.

pub mod last_use;
pub mod purge;
pub mod reload;
pub mod retention;
pub mod seal;

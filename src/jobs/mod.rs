//! What runs beside the requests: one file a job. Started by the server, which also ends them. A job that
//! fails logs why and goes on.

pub mod mac_refresh;
pub mod readiness;

//! Limits: what a Verify of a token with a plan spends, and what it says of the limits. Called by `verify`; its
//! types are read by the API. Knows no gRPC and no SQL.

pub mod status;

pub use status::{LimitStatus, Spending, StatusKind};

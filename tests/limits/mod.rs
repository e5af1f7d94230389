//! Limits: the statements that lease, and what replicas spend.

mod additions;
mod credit_statement;
mod named;
mod overload;
mod plans;
mod rate_statement;
mod spending;
mod statements;
mod streams;
mod trouble;

//! Limits: the statements that lease, and what replicas spend.

mod credit_statement;
mod rate_statement;
mod statements;

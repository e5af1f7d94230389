//! Audit log, policies and retention, from outside.

mod acting_users;
mod ends;
mod enforcement;
mod events;
mod policy;
mod policy_cost;
mod quota;
mod role;
mod seals;

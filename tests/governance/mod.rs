//! Audit log, policies and retention, from outside.

mod acting_users;
mod dry_run;
mod ends;
mod enforcement;
mod events;
mod policy;
mod quota;
mod role;
mod seals;

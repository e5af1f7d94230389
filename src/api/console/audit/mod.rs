//! The audit log: its page, with filters in the address, and its export. Their paths are served by the listener.

mod export;
mod list;
mod pages;
mod query;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::api::console::interface::{Console, page};

/// Returns the paths of the audit log.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/audit", get(page!(list::page)))
        .route("/audit/events.jsonl", get(page!(export::open)))
}

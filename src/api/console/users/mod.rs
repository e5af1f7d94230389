//! Users: who has tokens or is disabled, and disabling and enabling one. Their paths are served by the listener.

mod list;
mod pages;
mod query;
mod usability;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::api::console::interface::{Console, page};

/// Returns the paths of users.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/users", get(page!(list::page)))
        .route("/users/disable", get(page!(usability::ask_to_disable)).post(page!(usability::disable)))
        .route("/users/enable", get(page!(usability::ask_to_enable)).post(page!(usability::enable)))
}

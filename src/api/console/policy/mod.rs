//! The policy of an organization: what it allows, which tokens would break another one, and its change. Its path is
//! served by the listener.

mod edit;
pub(super) mod form;
mod pages;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::api::console::interface::{Console, page};

/// Returns the paths of policies.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new().route("/policy", get(page!(edit::page)).post(page!(edit::check_or_save)))
}

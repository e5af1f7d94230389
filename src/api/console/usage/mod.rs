//! Usage: how often tokens were verified, drawn over time, and which tokens were verified most or expire next. Its path
//! is served by the listener; the page of a token shows its chart, too.

pub(super) mod chart;
mod needs_look;
mod overview;
mod pages;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::api::console::interface::{Console, page};

/// Returns the path of the usage.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new().route("/usage", get(page!(overview::page)))
}

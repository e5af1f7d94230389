//! Two pages: whether a text has secrets or ids of this installation, and why a token is accepted or not. Both use POST
//! although they change nothing, so that typed secrets never appear in a URL. Their paths are served by the listener.

mod candidates;
mod explain;
mod pages;
mod secret_scan;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::api::console::interface::{Console, page};

/// Returns the paths of both.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/find", get(page!(secret_scan::ask)).post(page!(secret_scan::find)))
        .route("/why", get(page!(explain::ask)).post(page!(explain::judge)))
}

//! Sessions: signing in and out, and what each request of a session passes. Its paths are served by the listener.

pub(super) mod gate;
mod link;
mod login;
mod own;
mod pages;
pub(super) mod proof;
mod sign_in;
pub(super) mod visit;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::api::console::interface::Console;

/// Returns the paths of sessions.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/sign-in", get(sign_in::form).post(sign_in::submit))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/link", get(link::form).post(link::look))
        .route("/link/confirm", post(link::confirm))
        .route("/login", get(login::show).post(login::submit))
        .route("/sessions", get(own::show))
        .route("/sessions/end", post(own::submit))
}

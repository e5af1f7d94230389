//! Sessions: signing in and out, and what each request of a session passes. Its paths are served by the listener.

pub(super) mod gate;
mod link;
mod login;
mod own;
mod pages;
mod portal;
mod portal_page;
pub(super) mod proof;
mod sign_in;
pub(super) mod visit;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::api::console::interface::{Console, page};

/// Returns the paths of sessions.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/sign-in", get(sign_in::form).post(page!(sign_in::submit)))
        .route("/sign-out", post(page!(sign_in::sign_out)))
        .route("/link", get(link::form).post(page!(link::look)))
        .route("/link/confirm", post(page!(link::confirm)))
        .route("/login", get(page!(login::ask)).post(page!(login::allow)))
        .route("/portal", get(portal::form).post(page!(portal::look)))
        .route("/portal/open", post(page!(portal::open)))
        .route("/sessions", get(page!(own::list)))
        .route("/sessions/end", post(page!(own::end)))
}

/// Returns whether a path is one of a portal session: those of tokens, and what opens and ends it.
pub(super) fn is_of_portal(path: &str) -> bool {
    // Revoking all tokens of a user at once needs tokend:write.
    if path == "/tokens/user" {
        return false;
    }
    let first = path.strip_prefix('/').and_then(|rest| rest.split('/').next()).unwrap_or_default();
    matches!(first, "portal" | "tokens" | "sign-out")
}

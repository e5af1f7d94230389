//! Tokens: the list, the form for a new one, its secret once, one token, its revocation. Their paths are served by
//! the listener.

mod created;
mod list;
mod list_query;
mod live;
mod new;
mod new_form;
mod pages;
mod revoke;
mod token;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::api::console::interface::Console;

/// Returns the paths of tokens.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/tokens", get(list::show))
        .route("/tokens/live", get(live::stream))
        .route("/tokens/new", get(new::show).post(new::submit))
        .route("/tokens/created/{nonce}", get(created::show))
        .route("/tokens/created/{nonce}/done", post(created::done))
        .route("/tokens/{id}", get(token::show))
        .route("/tokens/{id}/revoke", get(revoke::show).post(revoke::submit))
}

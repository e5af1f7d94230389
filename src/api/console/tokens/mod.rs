//! Tokens: the list, the form for a new one, its secret once, one token and what can be done with it, several at once.
//! Their paths are served by the listener.

mod chosen;
mod created;
mod edit;
mod edit_form;
mod expiration;
mod history;
mod like;
mod list;
mod list_query;
mod live;
mod new;
mod new_form;
mod notice;
mod pages;
mod revoke;
mod rotate;
mod subject;
mod switch;
mod terms;
mod token;
mod user;
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
        .route("/tokens/chosen", get(chosen::show).post(chosen::submit))
        .route("/tokens/chosen/done", get(chosen::show_done))
        .route("/tokens/user", get(user::show).post(user::submit))
        .route("/tokens/{id}", get(token::show))
        .route("/tokens/{id}/rotate", get(rotate::show).post(rotate::submit))
        .route("/tokens/{id}/edit", get(edit::show).post(edit::submit))
        .route("/tokens/{id}/disable", get(switch::show_disable).post(switch::disable))
        .route("/tokens/{id}/enable", get(switch::show_enable).post(switch::enable))
        .route("/tokens/{id}/revoke", get(revoke::show).post(revoke::submit))
}

//! Tokens: the list, the form for a new one, its secret once, one token and what can be done with it, several at once.
//! Their paths are served by the listener.

mod chosen;
mod created;
mod edit;
mod edit_form;
mod expiration;
mod grant_form;
mod history;
mod like;
mod list;
mod list_query;
mod live;
mod new;
mod new_form;
pub(super) mod notice;
mod pages;
mod revoke;
mod rotate;
pub(super) mod subject;
mod terms;
mod token;
mod usability;
mod user;
pub(super) mod view;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use self::usability::{OFF, ON};
use crate::api::console::interface::{Console, page};

/// Returns the paths of tokens.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/tokens", get(page!(list::page)))
        .route("/tokens/live", get(page!(live::open)))
        .route("/tokens/new", get(page!(new::form)).post(page!(new::generate)))
        .route("/tokens/created/{nonce}", get(page!(created::page, id)))
        .route("/tokens/created/{nonce}/done", post(page!(created::forget, id)))
        .route("/tokens/chosen", get(page!(chosen::ask)).post(page!(chosen::act)))
        .route("/tokens/chosen/done", get(page!(chosen::done)))
        .route("/tokens/user", get(page!(user::ask)).post(page!(user::revoke)))
        .route("/tokens/{id}", get(page!(token::page, id)))
        .route("/tokens/{id}/rotate", get(page!(rotate::ask, id)).post(page!(rotate::rotate, id)))
        .route("/tokens/{id}/edit", get(page!(edit::ask, id)).post(page!(edit::save, id)))
        .route(
            "/tokens/{id}/disable",
            get(page!(usability::ask, id, OFF)).post(page!(usability::act, id, OFF)),
        )
        .route("/tokens/{id}/enable", get(page!(usability::ask, id, ON)).post(page!(usability::act, id, ON)))
        .route("/tokens/{id}/revoke", get(page!(revoke::ask, id)).post(page!(revoke::revoke, id)))
}

//! The console's listener and its paths. Built by the server. GET changes nothing anywhere.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};

use super::interface::{Console, go_to};
use super::{assets, created, gate, guard, list, missing, new, revoke, sign_in, token};
use crate::admission::request_memory::RequestLimiter;
use crate::api::http::connections::{self, Listener};
use crate::transport::listener::Incoming;

/// Serves until dropped. `head` bounds the wait for a request's head, and for the next request.
pub async fn serve(incoming: Incoming, console: Arc<Console>, requests: RequestLimiter, head: Duration) {
    let sealing = Arc::clone(&console);
    let seal = Arc::new(move |headers: &mut _| guard::seal(&sealing.site, headers));
    let listener = Listener { router: routes(console), requests, head, probes: &[], takes_body, seal };
    connections::serve(incoming, listener).await;
}

fn takes_body(method: &Method, _: &str) -> bool {
    method == Method::POST
}

fn routes(console: Arc<Console>) -> Router {
    Router::new()
        .route("/", get(async || go_to(gate::HOME)))
        .route("/sign-in", get(sign_in::form).post(sign_in::submit))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/tokens", get(list::show))
        .route("/tokens/new", get(new::show).post(new::submit))
        .route("/tokens/created/{nonce}", get(created::show))
        .route("/tokens/created/{nonce}/done", post(created::done))
        .route("/tokens/{id}", get(token::show))
        .route("/tokens/{id}/revoke", get(revoke::show).post(revoke::submit))
        .route("/assets/{name}", get(assets::serve))
        .fallback(missing::page)
        .layer(from_fn_with_state(Arc::clone(&console), guarded))
        .with_state(console)
}

async fn guarded(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    match guard::refusal(&console.site, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

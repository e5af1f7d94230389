//! The console's listener and its paths. Built by the server. GET changes nothing anywhere.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;

use super::interface::{Console, go_to};
use super::session::gate;
use super::{assets, audit, find, guard, missing, policy, session, tokens, usage, users};
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
        .merge(session::routes())
        .merge(tokens::routes())
        .merge(find::routes())
        .merge(audit::routes())
        .merge(policy::routes())
        .merge(usage::routes())
        .merge(users::routes())
        .route("/assets/{name}", get(assets::serve))
        .fallback(missing::page)
        .layer(from_fn_with_state(Arc::clone(&console), guarded))
        .with_state(console)
}

async fn guarded(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    if let Some(refusal) = guard::refusal(&console.site, &request) {
        return refusal;
    }
    let framed_by = console.site.framed_by(request.headers());
    let framed_by = framed_by.filter(|_| session::is_of_portal(request.uri().path()));
    let mut response = next.run(request).await;
    if let Some(origins) = framed_by {
        guard::frame(response.headers_mut(), &origins);
    }
    response
}

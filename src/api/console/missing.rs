//! Addresses that the console does not have.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::interface::{Console, PageRequest};
use super::pages::{Frame, Message};

/// Says so.
pub(super) async fn page(State(console): State<Arc<Console>>, page_request: PageRequest) -> Response {
    let text = "The address may be mistyped, or from another version of the console.".to_owned();
    let page = Message { frame: Frame::new(None, String::new()), title: "There is no such page", text };
    console.unauthenticated_page(&page_request, StatusCode::NOT_FOUND, &page)
}

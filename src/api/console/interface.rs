//! The console of a replica: what its pages share, a request, and how responses are made. Used by every page.

use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequest, Request};
use axum::http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

use super::form::Fields;
use super::site::Site;
use super::streams::Streams;
use crate::admission::response_memory::{Reservation, reserved_bytes};
use crate::api::http::client_address;
use crate::api::http::integrations::Integrations;
use crate::auth::peer::Peer;
use crate::auth::sessions::Sessions;
use crate::changefeed::hub::Hub;
use crate::secret::{CurrentKeyring, Prefix};
use crate::verify::ClientKey;

/// The console of a replica.
#[derive(Debug)]
pub struct Console {
    /// What it shares with the other interfaces.
    pub integrations: Arc<Integrations>,
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// Its site.
    pub site: Site,
    /// The prefix of secrets.
    pub prefix: Prefix,
    /// Publishes changes of tokens.
    pub hub: Arc<Hub>,
    /// Authenticates the positions of pages that listen.
    pub keyring: Arc<CurrentKeyring>,
    /// The answers that go on.
    pub streams: Streams,
}

/// A request, read to its end.
pub(super) struct PageRequest {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) peer: Peer,
    pub(super) body: Bytes,
}

/// Makes the handler of a page from the function that answers it, of a page of one token from a function that also takes
/// the part of the path that names it.
macro_rules! page {
    ($work:path $(, $name:ident $(, $more:expr)?)?) => {
        async |
            axum::extract::State(console): axum::extract::State<std::sync::Arc<$crate::api::console::interface::Console>>,
            $(axum::extract::Path($name): axum::extract::Path<String>,)?
            page_request: $crate::api::console::interface::PageRequest,
        | console.answer(&page_request, Box::pin($work(&console, &page_request $(, &$name $(, $more)?)?))).await
    };
}
pub(super) use page;

impl<S: Send + Sync> FromRequest<S> for PageRequest {
    type Rejection = StatusCode;

    async fn from_request(request: Request, state: &S) -> Result<Self, StatusCode> {
        let (parts, body) = request.into_parts();
        // The listener adds it to each request.
        let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<Peer>>().cloned() else {
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let (method, uri, headers) = (parts.method.clone(), parts.uri.clone(), parts.headers.clone());
        let body = Bytes::from_request(Request::from_parts(parts, body), state).await;
        Ok(Self { method, uri, headers, peer, body: body.map_err(|_| StatusCode::BAD_REQUEST)? })
    }
}

impl PageRequest {
    pub(super) fn query(&self) -> Fields<'_> {
        Fields::read(self.uri.query().unwrap_or_default().as_bytes())
    }

    pub(super) fn form(&self) -> Fields<'_> {
        Fields::read(&self.body)
    }

    /// Returns the path and the query.
    pub(super) fn address(&self) -> &str {
        self.uri.path_and_query().map_or("/", |whole| whole.as_str())
    }
}

impl Console {
    /// Returns the address of the person's browser: the peer's, or what a trusted proxy says; `None` if it says
    /// nothing.
    pub(super) fn address(&self, page_request: &PageRequest) -> Option<IpAddr> {
        let peer = page_request.peer.address.ip();
        if self.integrations.config.trusts(peer) {
            client_address::forwarded(&self.integrations.config, peer, &page_request.headers)
        } else {
            Some(peer)
        }
    }

    /// Returns the address that failed attempts count against.
    pub(super) fn throttled(&self, page_request: &PageRequest) -> IpAddr {
        self.address(page_request).unwrap_or_else(|| page_request.peer.address.ip())
    }

    /// Answers somebody without a session with a page.
    pub(super) fn unauthenticated_page(
        &self,
        page_request: &PageRequest,
        status: StatusCode,
        page: &impl Template,
    ) -> Response {
        let share = ClientKey::peer(Some(page_request.peer.address.ip()));
        let room =
            |text: &String| self.integrations.context.response_memory.reserve_for_refusal(share, text.len());
        match page.render().map(|text| (room(&text), text)) {
            Ok((Ok(room), text)) => html(status, &text, room),
            _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    }
}

/// Returns a page that keeps its reservation until it is sent.
pub(super) fn html(status: StatusCode, text: &str, room: Reservation) -> Response {
    let body = Body::from(reserved_bytes(text.as_bytes(), vec![room]));
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response()
}

/// Sends a browser to another page, which it gets.
pub(super) fn go_to(path: &str) -> Response {
    match HeaderValue::from_str(path) {
        Ok(path) => (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// Adds a cookie to a response.
pub(super) fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(mut value) = HeaderValue::from_str(cookie) {
        value.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, value);
    }
    response
}

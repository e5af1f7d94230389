//! What every request to the console passes, and what every response carries: the accepted name, the own pages,
//! and the headers that let a browser do nothing but show this page. Called by the listener.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::site::Site;

/// Nothing is loaded but from the console itself; no text becomes script.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors 'none'";

/// What follows in [`CONTENT_POLICY`] if nobody may show the page in a frame.
const NO_FRAMES: &str = "'none'";

/// Every feature of browsers that a page could ask for is off, but writing to the clipboard.
const FEATURES: &str = "accelerometer=(), autoplay=(), bluetooth=(), camera=(), clipboard-read=(), clipboard-write=(self), \
                        display-capture=(), encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), hid=(), \
                        idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), \
                        publickey-credentials-get=(), screen-wake-lock=(), serial=(), storage-access=(), usb=(), \
                        window-management=(), xr-spatial-tracking=()";

/// Returns why a request is not answered; `None` if it may pass.
pub(super) fn refusal<B>(site: &Site, request: &Request<B>) -> Option<Response> {
    let Some(authority) = site.named(request.headers(), request.uri()) else {
        let text = format!(
            "This console does not answer by this name. It is at {}\nIts operator sets --console-origin for another name.\n",
            site.link()
        );
        return Some(plain(StatusCode::MISDIRECTED_REQUEST, text));
    };
    if request.method() != Method::POST {
        return None;
    }
    if !site.is_own(request.headers(), authority) {
        let text = "This form was not sent from a page of the console, so nothing was changed. \
                    Open the console, and send its own form.\n";
        return Some(plain(StatusCode::FORBIDDEN, text));
    }
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    if !kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        return Some(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Send a form.\n"));
    }
    None
}

fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text.into()).into_response()
}

/// Lets a page of a portal session be shown in a frame by pages of these origins.
pub(super) fn frame(headers: &mut HeaderMap, origins: &str) {
    let policy = CONTENT_POLICY
        .strip_suffix(NO_FRAMES)
        .and_then(|rest| HeaderValue::from_str(&format!("{rest}{origins}")).ok());
    if let Some(policy) = policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
}

/// Adds the headers of every response. Only assets, whose names change with their content, may be cached.
pub(super) fn seal(site: &Site, headers: &mut HeaderMap) {
    let framed = headers.contains_key(CONTENT_SECURITY_POLICY);
    let mut set = |name: HeaderName, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    if !framed {
        set(CONTENT_SECURITY_POLICY, CONTENT_POLICY);
        // It cannot name origins.
        set(X_FRAME_OPTIONS, "DENY");
    }
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Where browsers do not say which site a request comes from, they say its origin, but with this alone.
    set(REFERRER_POLICY, if site.is_trustworthy() { "no-referrer" } else { "same-origin" });
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(HeaderName::from_static("permissions-policy"), FEATURES);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

//! The script, the stylesheet and the icon, under names that change with their content, so that browsers may keep
//! them for ever. Called by the pages for the names, and by the listener for the content.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

const FOREVER: &str = "public, max-age=31536000, immutable";

/// An embedded file.
pub(super) struct Asset {
    pub(super) name: String,
    kind: &'static str,
    content: &'static str,
}

/// The files.
pub(super) struct Assets {
    pub(super) style: Asset,
    pub(super) script: Asset,
    pub(super) icon: Asset,
}

pub(super) static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: asset("css", "text/css; charset=utf-8", include_str!("templates/console.css")),
    script: asset("js", "text/javascript; charset=utf-8", include_str!("templates/console.js")),
    icon: asset("svg", "image/svg+xml", include_str!("templates/icon.svg")),
});

fn asset(extension: &str, kind: &'static str, content: &'static str) -> Asset {
    let hash = Sha256::digest(content);
    let hash = hash.iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    Asset { name: format!("console-{hash}.{extension}"), kind, content }
}

/// Answers with a file.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let Assets { style, script, icon } = &*ASSETS;
    match [style, script, icon].into_iter().find(|asset| asset.name == name) {
        Some(asset) => {
            ([(CONTENT_TYPE, asset.kind), (CACHE_CONTROL, FOREVER)], asset.content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

//! A backend that signs its users in and lets them manage their own tokens of tokend, in a frame of its page or beside
//! it. The sign-in is a stand-in: put your own in its place.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use tokend_client::secrecy::ExposeSecret as _;
use tokend_client::{Client, Connection, NewPortalSession, Scope, Scopes};
use tokio::net::TcpListener;

/// The scopes of the tokens that users create for themselves.
const SCOPES: [&str; 1] = ["reports:*"];

struct App {
    tokend: Client,
    /// The users who are signed in, by the value of their cookie.
    signed_in: Mutex<HashMap<String, String>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A token with tokend:write, and with a grant that has these users and these scopes.
    let tokend =
        Connection::to(env::var("TOKEND_ADDRESS")?).secret_file(env::var("TOKEND_SECRET_FILE")?).open()?;
    let app = Arc::new(App { tokend, signed_in: Mutex::default() });
    let routes = Router::new()
        .route("/", get(home))
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/tokens", get(tokens))
        .with_state(app);
    axum::serve(TcpListener::bind(env::var("PORTAL_LISTEN")?).await?, routes).await?;
    Ok(())
}

/// Signs a user in who says a name. A real service asks for more.
async fn sign_in(State(app): State<Arc<App>>, name: String) -> Response {
    let Some(name) = name.strip_prefix("name=").filter(|name| !name.is_empty()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // Guessed by nobody: 122 random bits of the operating system.
    let Ok(id) = std::fs::read_to_string("/proc/sys/kernel/random/uuid") else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let id = id.trim().to_owned();
    let cookie = format!("app={id}; Path=/; HttpOnly; SameSite=Lax");
    app.users().insert(id, name.to_owned());
    (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, "/".to_owned())]).into_response()
}

/// Signs the user out, also of tokend.
async fn sign_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if let Some((id, user)) = app.user(&headers) {
        app.users().remove(&id);
        if app.tokend.revoke_portal_sessions(None, &user).await.is_err() {
            return StatusCode::BAD_GATEWAY.into_response();
        }
    }
    (StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response()
}

async fn home(State(app): State<Arc<App>>, headers: HeaderMap) -> Html<&'static str> {
    Html(match app.user(&headers) {
        Some(_) => {
            "<h1>Reports</h1><a href=/tokens>My tokens</a><form method=post action=/sign-out><button>Sign out</button></form>"
        }
        None => {
            "<h1>Reports</h1><form method=post action=/sign-in><input name=name><button>Sign in</button></form>"
        }
    })
}

/// Shows the user's own tokens. The user is the one who is signed in here, never one that a request names.
async fn tokens(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let Some((_, user)) = app.user(&headers) else {
        return (StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response();
    };
    let scopes = SCOPES.iter().map(|scope| Scope::parse(scope)).collect::<Result<_, _>>();
    let Ok(scopes) = scopes.and_then(Scopes::new) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    match app.tokend.create_portal_session(&NewPortalSession::new(user, scopes)).await {
        // The link is for this answer alone: no log, no cache, no address of a page.
        Ok(link) => {
            let page = format!(
                "<h1>Reports</h1><iframe title=\"My tokens\" width=1000 height=700 allow=clipboard-write src=\"{}\"></iframe>",
                link.url.expose_secret()
            );
            ([("cache-control", "no-store")], Html(page)).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, format!("tokend: {error}\n")).into_response(),
    }
}

impl App {
    fn users(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.signed_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the cookie and the user of a request.
    fn user(&self, headers: &HeaderMap) -> Option<(String, String)> {
        let cookies = headers.get(COOKIE)?.to_str().ok()?;
        let id = cookies.split("; ").find_map(|cookie| cookie.strip_prefix("app="))?;
        Some((id.to_owned(), self.users().get(id)?.clone()))
    }
}

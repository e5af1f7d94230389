//! The sessions of the token that a person is signed in with: since when, from where, and their end.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use uuid::Uuid;

use super::gate::unrecognised;
use super::pages::{SessionView, Sessions};
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Asked, Console, go_to, with_cookie};
use crate::api::console::moments::Moment;
use crate::store::Which;

/// Lists them.
pub(in crate::api::console) async fn show(State(console): State<Arc<Console>>, asked: Asked) -> Response {
    console.answer(&asked, Box::pin(page(&console, &asked))).await
}

/// Ends one.
pub(in crate::api::console) async fn end_one(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Response {
    console.answer(&asked, Box::pin(end(&console, &asked, Some(&id)))).await
}

/// Ends all of them, this one too.
pub(in crate::api::console) async fn end_all(State(console): State<Arc<Console>>, asked: Asked) -> Response {
    console.answer(&asked, Box::pin(end(&console, &asked, None))).await
}

async fn page(console: &Console, asked: &Asked) -> Result<Response, Failure> {
    let visit = console.visit(asked).await?;
    let all = match console.sessions.all_of(&visit.session, visit.now).await {
        Ok(all) => all,
        Err(error) => return Err(unrecognised(console, asked, error).await),
    };
    let sessions = all.into_iter().map(|session| SessionView {
        is_this: session.id == visit.session.id,
        id: session.id.to_string(),
        since: Moment::new(session.open_time, visit.now),
        last_use: Moment::new(session.last_use_time, visit.now),
        address: session.address.unwrap_or_else(|| "Not known".to_owned()),
        by_link: session.by_link,
    });
    let page = Sessions { sessions: sessions.collect(), frame: visit.frame() };
    console.page(&visit, StatusCode::OK, &page)
}

async fn end(console: &Console, asked: &Asked, id: Option<&str>) -> Result<Response, Failure> {
    let visit = console.visit(asked).await?;
    visit.check_form(&asked.form())?;
    let which = match id.map(Uuid::parse_str) {
        // No session has this id.
        None => Which::AllBut(Uuid::nil()),
        // What is not there has ended.
        Some(id) => Which::One(id.unwrap_or_default()),
    };
    if let Err(error) = console.sessions.end_some(&visit.session, which).await {
        return Err(unrecognised(console, asked, error).await);
    }
    let ended = match which {
        Which::One(id) => id == visit.session.id,
        Which::AllBut(_) => true,
    };
    if ended {
        Ok(with_cookie(go_to("/sign-in"), &console.site.set_cookie(None)))
    } else {
        Ok(go_to("/sessions"))
    }
}

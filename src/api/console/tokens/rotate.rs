//! The rotation of a token. As for a new one, the form has a nonce, the request id follows from it and the session,
//! and the successor's secret is shown by the same page until Done.

use axum::http::StatusCode;
use axum::response::Response;
use time::Duration;

use super::expiration::ExpirationChoice;
use super::new::with_nonce;
use super::notice::{self, Act};
use super::pages::Rotate;
use super::subject::{Subject, failed, is_shown_in_form, named, opened, sent};
use super::terms::Terms;
use crate::api::console::commands::{Call, Lines};
use crate::api::console::failure::{Explanation, Failure, foreign_form, of_action, policy};
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::moments::Moment;
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::domain::policy::{Policy, Rule};
use crate::domain::root::LastRoot;
use crate::secret::{FormNonce, TokenId};
use crate::tokens::ActionError;
use crate::tokens::rotate::RotateToken;

/// The graces to choose from: in the form, in words, in seconds.
const GRACES: [(&str, &str, i64); 4] = [
    ("now", "Not at all: refused at once", 0),
    ("1h", "1 hour", 3_600),
    ("24h", "24 hours", 86_400),
    ("7d", "7 days", 604_800),
];

/// Shows the form.
pub(super) async fn ask(
    console: &Console,
    page_request: &PageRequest,
    id: &str,
) -> Result<Response, Failure> {
    let visit = opened(console, page_request).await?;
    let id = named(id)?;
    let fields = page_request.query();
    if FormNonce::parse(fields.get("form")).is_none() {
        return Ok(go_to(&with_nonce(page_request, &format!("/tokens/{id}/rotate"))?));
    }
    let page = form(console, &visit, id, &fields, (Problems::default(), None)).await?;
    console.page(&visit, StatusCode::OK, &page)
}

/// Returns the page of the form, with what was chosen.
async fn form(
    console: &Console,
    visit: &Visit,
    id: TokenId,
    fields: &Fields<'_>,
    (problems, outcome): (Problems, Option<(String, bool)>),
) -> Result<Rotate, Failure> {
    let (subject, token) = Subject::read(console, visit, id).await?;
    let owner = (token.organization_id.as_str(), token.user_id.as_str(), token.owner_kind);
    let terms = Terms::read(console, visit, owner).await?;
    let terms = if Policy::binds(&token) { terms } else { terms.unbound() };
    let is_own = visit.caller().is_token(id);
    let longest = terms.longest_grace();
    let allowed = |seconds: i64| Duration::seconds(seconds) <= longest && !(is_own && seconds == 0);
    let offered = GRACES.into_iter().filter(|(_, _, seconds)| allowed(*seconds));
    let end = |seconds| Moment::new(visit.now.saturating_add(Duration::seconds(seconds)), visit.now);
    let graces: Vec<_> = offered.map(|(value, words, seconds)| (value, words, end(seconds))).collect();
    let rule = graces.len() < GRACES.len() && !is_own;
    let as_old = match &subject.token.expires {
        Some(end) => format!("As the old one: {}", end.exact),
        None => "As the old one: never".to_owned(),
    };
    let expiration_choice = posted_expiration(fields);
    let grace = fields.typed("grace");
    Ok(Rotate {
        frame: visit.frame(),
        nonce: fields.typed("form"),
        grace_rule: rule.then(|| policy(Rule::LongestGrace).replace(" Choose a shorter time.", "")),
        graces,
        is_own,
        expiration_options: terms.expiration_options(visit.now).or_keep(as_old),
        lines: lines(id, &grace, &expiration_choice),
        grace,
        expiration_choice,
        problems,
        outcome,
        subject,
        proof: visit.needs_proof(),
    })
}

fn posted_expiration(fields: &Fields<'_>) -> ExpirationChoice {
    let expiration_choice = ExpirationChoice::posted(fields);
    if expiration_choice.choice.is_empty() { ExpirationChoice::kept() } else { expiration_choice }
}

fn lines(id: TokenId, grace: &str, expiration_choice: &ExpirationChoice) -> Lines {
    let call = Call::new(&["token", "rotate"], "RotateToken");
    let seconds = GRACES.iter().find(|(value, _, _)| *value == grace).map_or(0, |(_, _, seconds)| *seconds);
    let call = if seconds == 0 {
        call
    } else {
        call.flag("grace-period", Some(grace)).set("gracePeriod", format!("{seconds}s").into())
    };
    expiration_choice.said(call, "").about("tokenId", &id.to_string()).lines()
}

/// Rotates the token.
pub(super) async fn rotate(
    console: &Console,
    page_request: &PageRequest,
    id: &str,
) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = sent(console, page_request, &fields).await?;
    let id = named(id)?;
    let nonce = FormNonce::parse(&fields.typed("form")).ok_or_else(foreign_form)?;
    let is_own = visit.caller().is_token(id);
    let mut problems = Problems::default();
    let chosen = fields.typed("grace");
    // A token that rotates itself at once could not show its successor's secret.
    let grace = GRACES.iter().find(|(value, _, seconds)| *value == chosen && !(is_own && *seconds == 0));
    if grace.is_none() {
        problems.add("grace", "Choose how long the old token is still accepted.");
    }
    // It gets no later end by itself.
    let expiration_choice = if is_own { ExpirationChoice::kept() } else { posted_expiration(&fields) };
    let expiration = expiration_choice.parse(&mut problems);
    let (Some((_, _, seconds)), Some(expiration)) = (grace, expiration) else {
        let page = form(console, &visit, id, &fields, (problems, None)).await?;
        return console.page(&visit, StatusCode::BAD_REQUEST, &page);
    };
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let problems = Problems::one("proof", problem);
        let page = form(console, &visit, id, &fields, (problems, None)).await?;
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    let request = RotateToken {
        id,
        expiration: expiration.expiration(),
        grace_period: Duration::seconds(*seconds),
        request_id: Some(visit.key.request_id(&nonce)),
        last_root: LastRoot::Refuse,
    };
    let actions = &console.integrations.context.actions;
    let forgetting = console.integrations.context.engine.invalidate_token(id);
    let rotated = actions.rotate_token(visit.caller(), request).await;
    drop(forgetting);
    match rotated {
        Ok(_) => Ok(go_to(&result(console, &visit, &nonce, *seconds).await)),
        Err(error) if is_shown_in_form(&error) => {
            let Explanation { status, text, .. } = of_action(&error);
            let exists = matches!(error, ActionError::RequestIdReused | ActionError::Unrepeatable(_));
            let problems = refused(&error, &expiration_choice);
            let outcome = problems.is_empty().then_some((text, exists));
            let page = form(console, &visit, id, &fields, (problems, outcome)).await?;
            let page = console.page(&visit, status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(failed(console, page_request, error)),
    }
}

/// Returns the address of the new secret. If the old one ends at once, it has a notice of when that holds.
async fn result(console: &Console, visit: &Visit, nonce: &FormNonce, seconds: i64) -> String {
    let path = format!("/tokens/created/{nonce}");
    if seconds > 0 {
        return path;
    }
    // It is rotated: the secret is shown even if the time cannot be.
    match console.integrations.context.actions.effective_time(visit.caller()).await {
        Ok(effective) => notice::address(visit, &path, Act::Rotated, &nonce.to_string(), effective),
        Err(_) => path,
    }
}

/// Returns the errors of a rotation that belong to a field.
fn refused(error: &ActionError, expiration_choice: &ExpirationChoice) -> Problems {
    match error {
        ActionError::Policy(rule @ Rule::LongestGrace) => Problems::one("grace", policy(*rule)),
        ActionError::Policy(rule @ (Rule::ExpirationRequired | Rule::LongestLifetime)) => {
            Problems::one(expiration_choice.field(), policy(*rule))
        }
        ActionError::Invalid(violations) => {
            Problems::one(expiration_choice.field(), super::new::invalid_end(violations))
        }
        _ => Problems::default(),
    }
}

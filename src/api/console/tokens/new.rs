//! The form for a new token, and Generate. The form has a nonce; the request id of the creation follows from it and
//! from the session, so that however often and wherever the form is sent, it makes one token.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;
use time::Duration;
use tracing::{Span, field};

use super::new_form::{NewForm, PRESETS};
use super::pages::New;
use crate::admission::fair_limiter::Refused;
use crate::api::console::failure::{Failure, Words, foreign_form, of_action, policy};
use crate::api::console::form::Problems;
use crate::api::console::interface::{Asked, Console, go_to};
use crate::api::console::moments::Moment;
use crate::api::console::session::gate::{self, Why};
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::clock;
use crate::domain::policy::Rule;
use crate::domain::{AccessError, CredentialError, Permission, Reach, ReservedScope, Scope, Scopes};
use crate::secret::FormNonce;
use crate::tokens::ActionError;

/// What the reserved scopes allow.
const PRIVILEGES: [(ReservedScope, &str); 5] = [
    (ReservedScope::Verify, "ask whether secrets of its organization are valid"),
    (ReservedScope::VerifyAny, "ask whether secrets of every organization are valid"),
    (ReservedScope::Read, "read the tokens and the audit log of its organization"),
    (ReservedScope::Write, "create, change and revoke tokens of its organization"),
    (ReservedScope::Root, "do everything, in every organization"),
];

/// Shows the form; what the address names is filled in.
pub(super) async fn show(State(console): State<Arc<Console>>, asked: Asked) -> Response {
    console.answer(&asked, Box::pin(form(&console, &asked))).await
}

/// Creates the token.
pub(super) async fn submit(State(console): State<Arc<Console>>, asked: Asked) -> Response {
    console.answer(&asked, Box::pin(generate(&console, &asked))).await
}

async fn form(console: &Console, asked: &Asked) -> Result<Response, Failure> {
    let visit = console.visit(asked).await?;
    visit.caller().require(Permission::Write)?;
    let form = NewForm::prefilled(&asked.query());
    if form.nonce().is_none() {
        // The nonce stands in the address: going back to it from the secret is going back to the same form.
        return Ok(go_to(&with_nonce(asked)?));
    }
    console.page(&visit, StatusCode::OK, &page(&visit, form, Problems::default(), None))
}

fn with_nonce(asked: &Asked) -> Result<String, Failure> {
    let nonce = FormNonce::generate(&mut clock::randomness()).map_err(|_| Refused::Full)?;
    let mut query = Serializer::new(String::new());
    query.append_pair("form", &nonce.to_string());
    let given = form_urlencoded::parse(asked.uri.query().unwrap_or_default().as_bytes());
    query.extend_pairs(given.filter(|(name, _)| name != "form"));
    Ok(format!("/tokens/new?{}", query.finish()))
}

async fn generate(console: &Console, asked: &Asked) -> Result<Response, Failure> {
    let mut visit = console.visit(asked).await?;
    let fields = asked.form();
    visit.check_form(&fields)?;
    visit.caller().require(Permission::Write)?;
    let form = NewForm::posted(&fields);
    let nonce = form.nonce().ok_or_else(foreign_form)?;
    if let Some(problem) = proof::missing(console, asked, &mut visit, &fields).await? {
        let page = page(&visit, form, Problems::one("proof", problem), None);
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    let request = match form.request(visit.key.request_id(&nonce)) {
        Ok(request) => request,
        Err(problems) => {
            let page = page(&visit, form, problems, None);
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    match console.integrations.context.actions.create_token(visit.caller(), request).await {
        Ok(created) => {
            Span::current().record("token.id", field::display(created.token.id));
            Span::current().record("user.id", field::display(created.token.user_id.as_str()));
            Ok(go_to(&format!("/tokens/created/{nonce}")))
        }
        Err(ActionError::Credential(error)) => Err(error_of_session(console, asked, error)),
        Err(error) => {
            let Words { status, title, text } = of_action(&error);
            let exists = matches!(error, ActionError::RequestIdReused | ActionError::Unrepeatable(_));
            let problems = problems(&error, &form);
            let outcome = problems.is_empty().then(|| (format!("{title}. {text}"), exists));
            let page = console.page(&visit, status, &page(&visit, form, problems, outcome))?;
            Err(Failure::shown(error, page))
        }
    }
}

/// Asks for a sign-in: the session's token was ended in mid-form.
fn error_of_session(console: &Console, asked: &Asked, error: CredentialError) -> Failure {
    gate::wanted(console, asked, Why::Credential(error))
}

/// Returns the errors of an action that belong to a field.
fn problems(error: &ActionError, form: &NewForm) -> Problems {
    let end = if form.expiration == "date" { "date" } else { "expiration" };
    match error {
        ActionError::Policy(rule) => {
            let field = match rule {
                Rule::AllowedScopes => "scopes",
                Rule::MostActiveTokens => "user",
                _ => end,
            };
            Problems::one(field, policy(*rule))
        }
        ActionError::Access(access) => {
            let field = match access {
                AccessError::ForeignOrganization => "organization",
                AccessError::Privileged(_) => "scopes",
                AccessError::OutlivesCaller => end,
                AccessError::WiderNetworks => "networks",
                AccessError::MissingScope(_) => return Problems::default(),
            };
            Problems::one(field, of_action(error).text)
        }
        ActionError::Invalid(violations) => {
            let texts = violations.list().iter().map(|violation| violation.description.as_str());
            Problems::one(end, format!("The expiration {}.", texts.collect::<Vec<_>>().join("; it ")))
        }
        _ => Problems::default(),
    }
}

fn page(visit: &Visit, form: NewForm, problems: Problems, outcome: Option<(String, bool)>) -> New {
    let caller = visit.caller();
    let grants = |scope: ReservedScope| {
        let wanted = Scopes::new(vec![Scope::from(scope)]).map(|scopes| scopes.reserved());
        wanted.is_ok_and(|wanted| caller.may_manage_reserved(wanted).is_ok())
    };
    let privileges = PRIVILEGES.into_iter().filter(|(scope, _)| grants(*scope));
    let end = |days| Moment::new(visit.now.saturating_add(Duration::days(days)), visit.now);
    New {
        frame: visit.frame(),
        form,
        problems,
        outcome,
        organizations: caller.reach() == Reach::Any,
        expirations: PRESETS.into_iter().map(|(value, words, days)| (value, words, end(days))).collect(),
        proof: visit.needs_proof(),
        privileges: privileges.map(|(scope, words)| (scope.word(), words)).collect(),
    }
}

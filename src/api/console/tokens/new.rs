//! The form for a new token, and Generate. The form has a nonce; the request id of the creation follows from it and
//! from the session, so that however often and wherever the form is sent, it makes one token.

use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;
use tracing::{Span, field};

use super::expiration::ExpirationChoice;
use super::new_form::NewForm;
use super::pages::New;
use super::subject::{failed, is_shown_in_form, opened, sent};
use super::terms::Terms;
use crate::admission::fair_limiter::Refused;
use crate::api::console::failure::{Explanation, Failure, foreign_form, of_action, policy};
use crate::api::console::form::Problems;
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::pages::visible;
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::clock;
use crate::domain::policy::Rule;
use crate::domain::{AccessError, Bound, Caller, Permission, Reach, ReservedScope, Violations};
use crate::secret::FormNonce;
use crate::tokens::ActionError;

/// What the reserved scopes allow.
const PRIVILEGES: [(ReservedScope, &str); 6] = [
    (ReservedScope::Verify, "ask whether secrets of its organization are valid"),
    (ReservedScope::VerifyAny, "ask whether secrets of every organization are valid"),
    (ReservedScope::Read, "read the tokens and the audit log of its organization"),
    (ReservedScope::Own, "manage the tokens of its own user"),
    (ReservedScope::Write, "create, change and revoke tokens of its organization"),
    (ReservedScope::Root, "do everything, in every organization"),
];

/// Shows the form; what the address names is filled in.
pub(super) async fn form(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = opened(console, page_request).await?;
    let form = NewForm::prefilled(&page_request.query());
    if form.nonce().is_none() {
        // The nonce stands in the address: going back to it from the secret is going back to the same form.
        return Ok(go_to(&with_nonce(page_request, "/tokens/new")?));
    }
    let page = page(console, &visit, form, Problems::default(), None).await?;
    console.page(&visit, StatusCode::OK, &page)
}

/// Returns the address of a form with a new nonce.
pub(super) fn with_nonce(page_request: &PageRequest, path: &str) -> Result<String, Failure> {
    let nonce = FormNonce::generate(&mut clock::randomness()).map_err(|_| Refused::Full)?;
    let mut query = Serializer::new(String::new());
    query.append_pair("form", &nonce.to_string());
    let given = form_urlencoded::parse(page_request.uri.query().unwrap_or_default().as_bytes());
    query.extend_pairs(given.filter(|(name, _)| name != "form"));
    Ok(format!("{path}?{}", query.finish()))
}

/// Creates the token.
pub(super) async fn generate(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = sent(console, page_request, &fields).await?;
    let form = NewForm::posted(&fields);
    let nonce = form.nonce().ok_or_else(foreign_form)?;
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let page = page(console, &visit, form, Problems::one("proof", problem), None).await?;
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    let request = match form.request(visit.key.request_id(&nonce)) {
        Ok(request) => request,
        Err(problems) => {
            let page = page(console, &visit, form, problems, None).await?;
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    match console.integrations.context.actions.create_token(visit.caller(), request).await {
        Ok(created) => {
            Span::current().record("token.id", field::display(created.token.id));
            Span::current().record("user.id", field::display(created.token.user_id.as_str()));
            Ok(go_to(&format!("/tokens/created/{nonce}")))
        }
        Err(error) if is_shown_in_form(&error) => {
            let Explanation { status, title, text } = of_action(&error);
            let exists = matches!(error, ActionError::RequestIdReused | ActionError::Unrepeatable(_));
            let problems = refused(&error, &form.expiration_choice);
            let outcome = problems.is_empty().then(|| (format!("{title}. {text}"), exists));
            let page = page(console, &visit, form, problems, outcome).await?;
            let page = console.page(&visit, status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(failed(console, page_request, error)),
    }
}

/// Returns the errors of an action that belong to a field.
pub(super) fn refused(error: &ActionError, expiration_choice: &ExpirationChoice) -> Problems {
    match error {
        ActionError::Policy(rule) => {
            let field = match rule {
                Rule::AllowedScopes => "scopes",
                Rule::MostActiveTokens => "user",
                _ => expiration_choice.field(),
            };
            Problems::one(field, policy(*rule))
        }
        ActionError::Access(access) => {
            let field = match access {
                AccessError::ForeignOrganization => "organization",
                AccessError::Exceeds(Bound::User) => "user",
                AccessError::Privileged(_) | AccessError::Exceeds(Bound::Scopes) => "scopes",
                AccessError::OutlivesCaller | AccessError::Exceeds(Bound::Lifetime) => {
                    expiration_choice.field()
                }
                AccessError::WiderNetworks | AccessError::Exceeds(Bound::Networks) => "networks",
                AccessError::Exceeds(Bound::Grant) => "grant",
                AccessError::MissingScope(_) | AccessError::Exceeds(Bound::Plan) => {
                    return Problems::default();
                }
            };
            Problems::one(field, of_action(error).text)
        }
        ActionError::Invalid(violations) if violations.list().iter().any(|of| of.field == "grant") => {
            let texts = violations.list().iter().map(|violation| violation.description.as_str());
            Problems::one("grant", format!("What it may issue {}.", texts.collect::<Vec<_>>().join("; ")))
        }
        ActionError::Invalid(violations) => Problems::one(expiration_choice.field(), invalid_end(violations)),
        _ => Problems::default(),
    }
}

/// Returns whether the caller may issue tokens that issue others in turn.
pub(super) fn grants(caller: &Caller) -> bool {
    [ReservedScope::Own, ReservedScope::Write].into_iter().any(|scope| caller.offers_with_grant(scope))
}

/// Says what is wrong with an expiration that only the database's clock shows.
pub(super) fn invalid_end(violations: &Violations) -> String {
    let texts = violations.list().iter().map(|violation| violation.description.as_str());
    format!("The expiration {}.", texts.collect::<Vec<_>>().join("; it "))
}

async fn page(
    console: &Console,
    visit: &Visit,
    mut form: NewForm,
    problems: Problems,
    outcome: Option<(String, bool)>,
) -> Result<New, Failure> {
    let caller = visit.caller();
    let own = caller.only_user(Permission::WriteOwn);
    if let Some(own) = own.filter(|_| form.user.is_empty()) {
        own.as_str().clone_into(&mut form.user);
    }
    let kind = caller.offered_kind();
    if let Some(kind) = kind {
        kind.word().clone_into(&mut form.owner);
    }
    let terms = Terms::read(console, visit, (&form.organization, &form.user, form.kind())).await?;
    let allowed = terms.scopes();
    form.offer(&allowed);
    let privileges = PRIVILEGES.into_iter().filter(|(scope, _)| terms.offers(caller, *scope));
    Ok(New {
        own: own.is_some(),
        kind: kind.is_some(),
        grants: grants(caller),
        limited: caller.offered_scopes().is_some(),
        frame: visit.frame(),
        expiration_choice: form.expiration_choice.clone(),
        problems,
        outcome,
        organizations: caller.reach() == Reach::Any,
        expiration_options: terms.expiration_options(visit.now),
        patterns: terms.has_patterns(),
        count: terms.count_of(&visible(&form.user)),
        allowed,
        privileges: privileges.map(|(scope, words)| (scope.word(), words)).collect(),
        lines: form.lines(),
        form,
        proof: visit.needs_proof(),
    })
}

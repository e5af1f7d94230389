//! The editor of a policy: it is checked against the tokens that there are before it can be saved, and saved only if
//! nobody else has saved another one meanwhile.

use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;

use super::form::{PolicyForm, mark};
use super::pages::{Check, Edit};
use crate::api::console::commands::Call;
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::Problems;
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::moments::Moment;
use crate::api::console::pages::visible;
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::domain::policy::{Policy, StoredPolicy};
use crate::domain::{OrganizationId, Permission, Reach};
use crate::tokens::ActionError;

/// What the page says of the policy as a whole.
type Outcome = Option<(&'static str, &'static str)>;

const SAVED: (&str, &str) = ("good", "Saved. Tokens that there are stay as they are until it is enforced.");
const CHANGED: (&str, &str) = (
    "bad",
    "Nothing was saved: somebody has saved another policy meanwhile. This is what you typed; check it again, or load \
     the page anew to see theirs.",
);

/// Shows the policy of an organization.
pub(super) async fn page(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    visit.caller().require(Permission::ReadAll)?;
    let fields = page_request.query();
    let organization = fields.get("organization");
    let (id, stored) = match stored(console, &visit, organization).await? {
        Ok(found) => found,
        Err(problems) => {
            let form = PolicyForm { organization: organization.to_owned(), ..PolicyForm::default() };
            let page = edit(&visit, form, problems, &StoredPolicy::default(), None);
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    let outcome = Some(SAVED).filter(|_| !fields.get("saved").is_empty());
    let form = PolicyForm::stored(id.as_str(), &stored);
    console.page(&visit, StatusCode::OK, &edit(&visit, form, Problems::default(), &stored, outcome))
}

/// Reads the policy of an organization; empty: the session's own.
async fn stored(
    console: &Console,
    visit: &Visit,
    organization: &str,
) -> Result<Result<(OrganizationId, StoredPolicy), Problems>, Failure> {
    let named = Some(organization).filter(|text| !text.is_empty()).map(OrganizationId::parse).transpose();
    let named = match named {
        Ok(named) => named,
        Err(error) => return Ok(Err(Problems::one("organization", format!("The organization {error}.")))),
    };
    match console.integrations.context.actions.get_policy(visit.caller(), named).await {
        Ok(found) => Ok(Ok(found)),
        Err(error @ ActionError::Access(_)) => Ok(Err(Problems::one("organization", of_action(&error).text))),
        Err(error) => Err(error.into()),
    }
}

fn edit(
    visit: &Visit,
    form: PolicyForm,
    problems: Problems,
    stored: &StoredPolicy,
    outcome: Outcome,
) -> Edit {
    let set = stored.updated_by.as_deref().zip(stored.update_time);
    Edit {
        frame: visit.frame(),
        organization: visible(&form.organization),
        problems,
        organizations: visit.caller().reach() == Reach::Any,
        may_save: visit.caller().require(Permission::Root).is_ok(),
        set: set.map(|(by, time)| (visible(by), Moment::new(time, visit.now))),
        outcome,
        lines: Call::new(&["policy", "get"], "GetPolicy")
            .text("organization", "organizationId", &form.organization)
            .lines(),
        form,
        check: None,
        proof: visit.needs_proof(),
    }
}

/// Checks a policy, or saves one that was checked.
pub(super) async fn check_or_save(
    console: &Console,
    page_request: &PageRequest,
) -> Result<Response, Failure> {
    let mut visit = console.visit(page_request).await?;
    let fields = page_request.form();
    visit.check_form(&fields)?;
    visit.caller().require(Permission::ReadAll)?;
    let form = PolicyForm::posted(&fields);
    let (id, stored) = match stored(console, &visit, &form.organization).await? {
        Ok(found) => found,
        Err(problems) => {
            let page = edit(&visit, form, problems, &StoredPolicy::default(), None);
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    let policy = match form.parse() {
        Ok(policy) => policy,
        Err(problems) => {
            let page = edit(&visit, form, problems, &stored, None);
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    if fields.get("act") != "save" {
        let mut page = edit(&visit, form, Problems::default(), &stored, None);
        page.check = Some(check(console, &visit, &id, &policy, &page.form).await?);
        return console.page(&visit, StatusCode::OK, &page);
    }
    visit.caller().require(Permission::Root)?;
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let mut page = edit(&visit, form, Problems::one("proof", problem), &stored, None);
        page.check = Some(check(console, &visit, &id, &policy, &page.form).await?);
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    let unchanged = |stored: &StoredPolicy| mark(stored.update_time) == form.based_on;
    let actions = &console.integrations.context.actions;
    let saved = actions.replace_policy(visit.caller(), Some(id), &policy, &unchanged).await?;
    let Some((id, _)) = saved else {
        // The one that is shown then.
        let form = PolicyForm { based_on: mark(stored.update_time), ..form };
        let page = edit(&visit, form, Problems::default(), &stored, Some(CHANGED));
        return console.page(&visit, StatusCode::CONFLICT, &page);
    };
    tracing::info!(organization.id = id.as_str(), ?policy, "policy set");
    let named = [("organization", id.as_str()), ("saved", "yes")];
    let query = Serializer::new(String::new()).extend_pairs(named).finish();
    Ok(go_to(&format!("/policy?{query}")))
}

async fn check(
    console: &Console,
    visit: &Visit,
    id: &OrganizationId,
    policy: &Policy,
    form: &PolicyForm,
) -> Result<Check, Failure> {
    let actions = &console.integrations.context.actions;
    let found = actions.check_policy(visit.caller(), Some(id.clone()), Some(policy.clone()), "").await?;
    Ok(Check::new(&found.breaches, found.next_page_token.is_some(), form.lines(id.as_str(), policy)))
}

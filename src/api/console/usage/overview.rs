//! The usage of an organization in the last 30 days: verdicts over time, the tokens that were verified most, and those
//! that need a look.

use axum::http::StatusCode;
use axum::response::Response;

use super::chart::{Chart, last_days, split};
use super::needs_look::needs_look;
use super::pages::{NAMED, Overview, TopToken};
use crate::api::console::commands::Call;
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::{Problems, optional};
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::pages::visible;
use crate::api::console::session::visit::Visit;
use crate::domain::size::LARGEST_TOKEN;
use crate::domain::usage::TokenUsage;
use crate::domain::{OrganizationId, Permission, Reach};
use crate::tokens::ActionError;
use crate::tokens::usage::Usage;

/// Shows the usage.
pub(super) async fn page(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    visit.caller().require(Permission::ReadOwn)?;
    let fields = page_request.query();
    let organization = fields.get("organization");
    let mut page = Overview {
        frame: visit.frame(),
        organization: organization.to_owned(),
        organizations: visit.caller().reach() == Reach::Any,
        own: visit.caller().only_user(Permission::ReadOwn).is_some(),
        problems: Problems::default(),
        chart: None,
        refusals: Vec::new(),
        top: Vec::new(),
        too_many: false,
        needs_look: None,
        lines: Call::new(&["usage"], "GetUsage")
            .text("organization", "organizationId", organization)
            .flag("by", Some("day"))
            .set("step", "USAGE_STEP_DAY".into())
            .flag("top", Some(&NAMED.to_string()))
            .set("topTokens", NAMED.into())
            .lines(),
    };
    let named =
        page.problems.take("organization", optional(organization, OrganizationId::parse), "The organization");
    let Some(named) = named else {
        return console.page(&visit, StatusCode::BAD_REQUEST, &page);
    };
    let most = LARGEST_TOKEN.saturating_mul(NAMED as usize);
    let context = &console.integrations.context;
    let _room = context.response_memory.acquire_page(visit.share(), most).await?;
    let (usage, too_many) = match read(console, &visit, named.clone()).await {
        Ok(read) => read,
        Err(error @ ActionError::Access(_)) if !organization.is_empty() => {
            page.problems = Problems::one("organization", of_action(&error).text);
            return console.page(&visit, StatusCode::FORBIDDEN, &page);
        }
        Err(error) => return Err(error.into()),
    };
    page.chart = Some(Chart::new(&usage));
    page.refusals = refusals(&usage);
    page.top = usage.answer.top.iter().map(TopToken::new).collect();
    page.too_many = too_many;
    page.needs_look = Some(needs_look(console, &visit, named).await?);
    console.page(&visit, StatusCode::OK, &page)
}

/// Reads the usage, without the tokens if there are too many; returns whether there are.
async fn read(
    console: &Console,
    visit: &Visit,
    organization: Option<OrganizationId>,
) -> Result<(Usage, bool), ActionError> {
    let actions = &console.integrations.context.actions;
    let days = |top| last_days(None, organization.clone(), (None, None), top);
    match actions.usage(visit.caller(), days(NAMED)).await {
        Err(ActionError::Invalid(_)) => Ok((actions.usage(visit.caller(), days(0)).await?, true)),
        read => Ok((read?, false)),
    }
}

/// Returns the refusals by verdict, in the order of the contract.
fn refusals(usage: &Usage) -> Vec<(&'static str, u64)> {
    let counts: Vec<_> = usage.answer.points.iter().flat_map(|point| &point.counts).collect();
    let of = |verdict: i16| {
        let counts = counts.iter().filter(|count| count.verdict == verdict);
        counts.fold(0_u64, |sum, count| sum.saturating_add(count.verifications))
    };
    let words = [
        (4, "Revoked"),
        (5, "Expired"),
        (6, "Disabled"),
        (7, "Scope missing"),
        (8, "Address not allowed"),
        (9, "Rate limited"),
        (10, "Credits used up"),
    ];
    words.into_iter().map(|(verdict, word)| (word, of(verdict))).filter(|(_, count)| *count > 0).collect()
}

impl TopToken {
    fn new(token: &TokenUsage) -> Self {
        let (valid, refused) = split(&token.counts);
        let named = token.named.as_ref().map(|(name, user, _)| (visible(name), visible(user)));
        Self { id: token.id.to_string(), named, valid, refused }
    }
}

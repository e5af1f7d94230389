//! The tokens of an organization that need a look: those that expire soon, were refused, or were never used, each kind
//! with the address of the list of all of them. Called by the page of the usage. Knows no counts.

use form_urlencoded::Serializer;
use time::{Duration, OffsetDateTime, Time};

use super::pages::{NAMED, Named, NamedToken, NeedsLook};
use crate::api::console::interface::Console;
use crate::api::console::moments::Moment;
use crate::api::console::pages::visible;
use crate::api::console::session::visit::Visit;
use crate::api::console::tokens::view::why_refused;
use crate::domain::page::{Listing, Order};
use crate::domain::{OrganizationId, Reach, Token, TokenState};
use crate::tokens::ActionError;
use crate::tokens::list::ListTokens;

/// How far into the past and the future.
const DAYS: Duration = Duration::days(30);

/// Reads a page of each kind of token.
pub(super) async fn needs_look(
    console: &Console,
    visit: &Visit,
    named: Option<OrganizationId>,
) -> Result<NeedsLook, ActionError> {
    let organization = visit.caller().organization(named)?;
    let organization = &organization;
    let all = || Listing::all(Some(organization.clone()));
    // The list is filtered by whole days.
    let midnight = |time: OffsetDateTime| time.replace_time(Time::MIDNIGHT);
    let since = midnight(visit.now.saturating_sub(DAYS));
    let until = midnight(visit.now.saturating_add(DAYS).saturating_add(Duration::DAY));
    let active = || Listing { states: vec![TokenState::Active], ..all() };

    let list = address(
        visit,
        organization,
        &[("state", "active"), ("expires_before", &day(until)), ("order", "expires")],
    );
    let listing = Listing { expires_before: Some(until), order: Order::ExpireTime, ..active() };
    let expiring = read(console, visit, (listing, list), expiration).await?;

    let list = address(visit, organization, &[("refused_after", &day(since))]);
    let listing = Listing { refused_after: Some(since), ..all() };
    let refused = read(console, visit, (listing, list), last_refusal).await?;

    let list = address(visit, organization, &[("state", "active"), ("never_used", "1")]);
    let listing = Listing { never_used: true, ..active() };
    let unused = read(console, visit, (listing, list), creation).await?;
    Ok(NeedsLook { expiring, refused, unused })
}

/// Returns a time of a token, and what happened then if the section does not say it.
type Shown = fn(&Token) -> Option<(OffsetDateTime, String)>;

fn expiration(token: &Token) -> Option<(OffsetDateTime, String)> {
    Some((token.expire_time?, String::new()))
}

fn last_refusal(token: &Token) -> Option<(OffsetDateTime, String)> {
    let refusal = token.last_refusal.as_deref()?;
    Some((refusal.time, why_refused(refusal)))
}

#[expect(clippy::unnecessary_wraps, reason = "as the others")]
fn creation(token: &Token) -> Option<(OffsetDateTime, String)> {
    Some((token.create_time, String::new()))
}

/// Returns the address of the list with these filters.
fn address(visit: &Visit, organization: &OrganizationId, filters: &[(&str, &str)]) -> String {
    let mut query = Serializer::new(String::new());
    // Others see one organization, and their list has no such filter.
    let organization = Some(organization).filter(|_| visit.caller().reach() == Reach::Any);
    query.extend_pairs(organization.map(|id| ("organization", id.as_str())));
    query.extend_pairs(filters);
    format!("/tokens?{}", query.finish())
}

/// Reads one page of a listing, whose list has this address.
async fn read(
    console: &Console,
    visit: &Visit,
    (listing, list): (Listing, String),
    shown: Shown,
) -> Result<Named, ActionError> {
    let request = ListTokens { listing, page_size: NAMED, page_token: None };
    let page = console.integrations.context.actions.list_tokens(visit.caller(), request).await?;
    let tokens = page.tokens.iter().filter_map(|(token, _)| {
        let (at, why) = shown(token)?;
        Some(NamedToken {
            id: token.id.to_string(),
            name: visible(token.name.as_str()),
            user: visible(token.user_id.as_str()),
            at: Moment::new(at, visit.now),
            why,
        })
    });
    Ok(Named { tokens: tokens.collect(), list, more: page.next_page_token.is_some() })
}

/// Returns a day as the list is filtered by it.
fn day(time: OffsetDateTime) -> String {
    time.date().to_string()
}

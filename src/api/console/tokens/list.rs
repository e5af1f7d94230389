//! The list of tokens.

use askama::Template as _;
use axum::http::StatusCode;
use axum::response::Response;

use super::list_query::ListQuery;
use super::pages::List;
use super::user;
use super::view::TokenView;
use crate::api::console::failure::{Failure, of_action, unrendered};
use crate::api::console::form::Problems;
use crate::api::console::interface::{Console, PageRequest, html};
use crate::api::console::owners::TypedOwner;
use crate::domain::{Caller, Permission, Reach};
use crate::tokens::ActionError;
use crate::tokens::list::ListTokens;

/// How many tokens a page shows. With more, a page would have more than 50 KB with what belongs to it.
const TOKENS_PER_PAGE: u32 = 25;

/// The most bytes that a token takes in the action and on the page.
const MAX_TOKEN_BYTES: usize = 32 << 10;

/// Shows a page of the tokens that the filters in the address select.
pub(super) async fn page(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let caller = visit.caller();
    let query = ListQuery::read(&page_request.query());
    let mut page = List {
        frame: visit.frame(),
        problems: Problems::default(),
        organizations: caller.reach() == Reach::Any,
        may_write: caller.require(Permission::WriteOwn).is_ok(),
        own: caller.only_user(Permission::ReadOwn).is_some(),
        tokens: Vec::new(),
        next: None,
        user_end: user_end(caller, &query),
        query,
    };
    let listing = match page.query.parse() {
        Ok(listing) => listing,
        Err(problems) => {
            page.problems = problems;
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    let most = MAX_TOKEN_BYTES.saturating_mul(TOKENS_PER_PAGE as usize);
    let turn = console.integrations.context.response_memory.acquire_page(visit.share(), most).await?;
    let page_token = Some(page.query.page.clone()).filter(|text| !text.is_empty());
    match console
        .integrations
        .context
        .actions
        .list_tokens(caller, ListTokens { listing, page_size: TOKENS_PER_PAGE, page_token })
        .await
    {
        Ok(found) => {
            let shown = found.tokens.iter().map(|(token, now)| TokenView::new(token, *now, &console.prefix));
            page.tokens = shown.collect();
            page.next = found.next_page_token.map(|token| page.query.at(&token));
        }
        Err(error @ ActionError::Access(_)) if page.query.organization.is_empty() => return Err(error.into()),
        Err(error @ ActionError::Access(_)) => {
            page.problems = Problems::one("organization", of_action(&error).text);
            return console.page(&visit, StatusCode::FORBIDDEN, &page);
        }
        Err(error) => return Err(error.into()),
    }
    let text = page.render().map_err(|_| unrendered())?;
    turn.reservation.shrink(text.len());
    Ok(html(StatusCode::OK, &text, turn.reservation.clone()))
}

/// Returns where all tokens of the user are revoked whose tokens are listed; `None`: of several users, or of a user
/// in an organization that the list does not say.
fn user_end(caller: &Caller, query: &ListQuery) -> Option<String> {
    let one = !query.user.is_empty() && (caller.reach() != Reach::Any || !query.organization.is_empty());
    (one && caller.require(Permission::WriteAll).is_ok()).then(|| {
        let (organization, user) = (query.organization.clone(), query.user.clone());
        TypedOwner { organization, user, kind: query.owner.clone() }.at(user::PATH)
    })
}

//! The list of users: who has tokens, how many, when one was last used, and who is disabled.

use axum::http::StatusCode;
use axum::response::Response;
use time::OffsetDateTime;

use super::pages::{List, UserView};
use super::query::UserQuery;
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::Problems;
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::moments::Moment;
use crate::api::console::owners::TypedOwner;
use crate::api::console::pages::visible;
use crate::domain::users::{LARGEST_USER, User};
use crate::domain::{Caller, OwnerKind, Permission, Reach};
use crate::tokens::ActionError;

/// How many users a page shows.
const USERS_PER_PAGE: u32 = 25;

/// Shows a page of the users that the filters in the address select.
pub(super) async fn page(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let caller = visit.caller();
    caller.require(Permission::ReadAll)?;
    let query = UserQuery::read(&page_request.query());
    let mut page = List {
        frame: visit.frame(),
        lines: query.lines(),
        query,
        problems: Problems::default(),
        organizations: caller.reach() == Reach::Any,
        users: Vec::new(),
        next: None,
    };
    let listing = match page.query.parse() {
        Ok(listing) => listing,
        Err(problems) => {
            page.problems = problems;
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    let context = &console.integrations.context;
    let most = LARGEST_USER.saturating_mul(USERS_PER_PAGE as usize);
    let _room = context.response_memory.acquire_page(visit.share(), most).await?;
    let page_token = Some(&*page.query.page).filter(|text| !text.is_empty());
    match context.actions.list_users(caller, listing, USERS_PER_PAGE, page_token).await {
        Ok(found) => {
            let organizations = page.organizations;
            let shown = found.users.iter().map(|user| UserView::new(user, caller, visit.now, organizations));
            page.users = shown.collect();
            page.next = found.next_page_token.map(|token| page.query.at(&token));
        }
        Err(error @ ActionError::Access(_)) if !page.query.organization.is_empty() => {
            page.problems = Problems::one("organization", of_action(&error).text);
            return console.page(&visit, StatusCode::FORBIDDEN, &page);
        }
        Err(error) => return Err(error.into()),
    }
    console.page(&visit, StatusCode::OK, &page)
}

impl UserView {
    fn new(user: &User, caller: &Caller, now: OffsetDateTime, organizations: bool) -> Self {
        let organization = if organizations { user.organization_id.as_str() } else { "" };
        let owner = TypedOwner::new(organization, user.user_id.as_str(), user.kind);
        let may = caller.require(Permission::WriteAll).is_ok()
            && caller.may_end_all(&user.user_id, user.kind).is_ok();
        let path = if user.disabling.is_some() { "/users/enable" } else { "/users/disable" };
        let disabled = user.disabling.as_ref();
        Self {
            user: visible(user.user_id.as_str()),
            organization: visible(user.organization_id.as_str()),
            is_service: user.kind == OwnerKind::Service,
            active: user.active,
            tokens: user.tokens,
            last_used: user.last_use_time.map(|time| Moment::new(time, now)),
            disabled: disabled.map(|of| (Moment::new(of.disable_time, now), visible(&of.reason))),
            list: owner.at("/tokens"),
            switch: may.then(|| owner.at(path)),
        }
    }
}

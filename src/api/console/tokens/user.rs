//! The revocation of all tokens of a user, after a page that lists them.

use axum::http::StatusCode;
use axum::response::Response;

use super::notice::{self, Act};
use super::pages::UserRevocation;
use super::revoke::confirmed;
use super::subject::{failed, is_shown_in_form, opened, sent};
use super::view::TokenView;
use crate::api::console::commands::{Call, Lines};
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::owners::TypedOwner;
use crate::api::console::pages::visible;
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::domain::TokenState;
use crate::domain::page::Listing;
use crate::domain::root::LastRoot;
use crate::secret::TokenId;
use crate::tokens::list::{ListTokens, Page};
use crate::tokens::users::NamedUser;

/// How many of the tokens are shown.
const MAX_SHOWN: u32 = 25;

/// The most bytes that a token takes in the action and on the page.
const MAX_TOKEN_BYTES: usize = 32 << 10;

/// The path of the page.
pub(super) const PATH: &str = "/tokens/user";

/// Asks whether to revoke them.
pub(super) async fn ask(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = opened(console, page_request).await?;
    let page = question(console, &visit, &page_request.query(), Problems::default()).await?;
    console.page(&visit, StatusCode::OK, &page)
}

async fn question(
    console: &Console,
    visit: &Visit,
    fields: &Fields<'_>,
    mut problems: Problems,
) -> Result<UserRevocation, Failure> {
    let owner = TypedOwner::read(fields);
    let found = match owner.parse(&mut problems) {
        Some(owner) => tokens(console, visit, owner).await?,
        None => Page { tokens: Vec::new(), next_page_token: None },
    };
    let shown = (visible(&owner.organization), visible(&owner.user));
    let reason = fields.typed("reason");
    Ok(UserRevocation {
        frame: visit.frame(),
        lines: lines(&owner, &reason),
        notice: notice::read(visit, fields, &owner.subject()).map(|(_, notice)| notice),
        owner,
        shown,
        tokens: found
            .tokens
            .iter()
            .map(|(token, now)| TokenView::new(token, *now, &console.prefix))
            .collect(),
        more: found.next_page_token.is_some(),
        reason,
        problems,
        outcome: None,
        proof: visit.needs_proof(),
    })
}

/// Reads the first of the user's tokens that are not revoked yet.
async fn tokens(console: &Console, visit: &Visit, owner: NamedUser) -> Result<Page, Failure> {
    let context = &console.integrations.context;
    let most = MAX_TOKEN_BYTES.saturating_mul(MAX_SHOWN as usize);
    let _room = context.response_memory.acquire_page(visit.share(), most).await?;
    let organization_id = visit.caller().organization(owner.organization_id)?;
    let listing = Listing {
        user_id: Some(owner.user_id),
        owner_kind: Some(owner.kind),
        states: vec![TokenState::Active, TokenState::Disabled, TokenState::Expired],
        ..Listing::all(Some(organization_id))
    };
    let request = ListTokens { listing, page_size: MAX_SHOWN, page_token: None };
    Ok(context.actions.list_tokens(visit.caller(), request).await?)
}

fn lines(owner: &TypedOwner, reason: &str) -> Lines {
    let call = Call::new(&["user", "revoke"], "RevokeUserTokens").text("reason", "reason", reason);
    owner.said(call).lines()
}

/// Revokes them. Sending the form again changes nothing.
pub(super) async fn revoke(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = sent(console, page_request, &fields).await?;
    let mut problems = Problems::default();
    let owner = TypedOwner::read(&fields);
    let (named, reason) = (owner.parse(&mut problems), confirmed(&fields, Act::Revoked, &mut problems));
    let (Some(named), Some(reason)) = (named, reason) else {
        let page = question(console, &visit, &fields, problems).await?;
        return console.page(&visit, StatusCode::BAD_REQUEST, &page);
    };
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let page = question(console, &visit, &fields, Problems::one("proof", problem)).await?;
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    let context = &console.integrations.context;
    let forgetting = context.engine.begin_invalidation();
    let touch = |ids: &[TokenId]| forgetting.also(ids);
    let given = (&reason, LastRoot::Refuse);
    let revoked = context.actions.revoke_user_tokens(visit.caller(), &named, given, &touch).await;
    match revoked {
        Ok(revoked) => {
            let path = owner.at(PATH);
            Ok(go_to(&notice::address(&visit, &path, Act::Revoked, &owner.subject(), revoked.effective_time)))
        }
        Err(error) if is_shown_in_form(&error) => {
            let mut page = question(console, &visit, &fields, Problems::default()).await?;
            let explanation = of_action(&error);
            page.outcome = Some(explanation.text);
            let page = console.page(&visit, explanation.status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(failed(console, page_request, error)),
    }
}

//! The revocation of all tokens of a user, after a page that lists them.

use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;

use super::notice::{self, Act};
use super::pages::UserRevocation;
use super::revoke::confirmed;
use super::subject::{failed, is_said_there, opened, sent};
use super::view::TokenView;
use crate::api::console::commands::{Call, Lines};
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::pages::visible;
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::domain::page::{Listing, Order};
use crate::domain::root::LastRoot;
use crate::domain::{OrganizationId, OwnerKind, TokenState, UserId};
use crate::secret::TokenId;
use crate::tokens::list::{ListTokens, Page};
use crate::tokens::users::NamedUser;

/// How many of the tokens are shown.
const SHOWN: u32 = 25;

/// The most bytes that a token takes in the use case and on the page.
const EACH: usize = 32 << 10;

/// Returns the address of the page for a user.
pub(super) fn address(organization: &str, user: &str) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("user", user);
    if !organization.is_empty() {
        query.append_pair("organization", organization);
    }
    format!("/tokens/user?{}", query.finish())
}

/// The user that a page is about.
struct Owner {
    organization: Option<OrganizationId>,
    user: UserId,
}

impl Owner {
    fn read(fields: &Fields<'_>, problems: &mut Problems) -> Option<Self> {
        let text = fields.get("organization");
        let organization = OrganizationId::parse(text).map(Some);
        let organization = if text.is_empty() { Ok(None) } else { organization };
        let user = problems.take("user", UserId::parse(fields.get("user")), "The user");
        let organization = problems.take("organization", organization, "The organization");
        Some(Self { organization: organization?, user: user? })
    }
}

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
    let (organization, user) = (fields.get("organization").to_owned(), fields.get("user").to_owned());
    let found = match Owner::read(fields, &mut problems) {
        Some(owner) => tokens(console, visit, owner).await?,
        None => Page { tokens: Vec::new(), next_page_token: None },
    };
    let shown = (visible(&organization), visible(&user));
    let reason = fields.typed("reason");
    let what = format!("{organization} {user}");
    Ok(UserRevocation {
        frame: visit.frame(),
        lines: lines(&organization, &user, &reason),
        notice: notice::read(visit, fields, &what).map(|(_, notice)| notice),
        organization,
        user,
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
async fn tokens(console: &Console, visit: &Visit, owner: Owner) -> Result<Page, Failure> {
    let context = &console.integrations.context;
    let most = EACH.saturating_mul(SHOWN as usize);
    let _room = context.response_memory.acquire_page(visit.share(), most).await?;
    let organization_id = visit.caller().organization(owner.organization)?;
    let listing = Listing {
        organization_id: Some(organization_id),
        user_id: Some(owner.user),
        owner_kind: Some(OwnerKind::User),
        states: vec![TokenState::Active, TokenState::Disabled, TokenState::Expired],
        created_after: None,
        created_before: None,
        expires_before: None,
        unused_since: None,
        name_contains: None,
        order: Order::CreateTimeDescending,
    };
    let request = ListTokens { listing, page_size: SHOWN, page_token: None };
    Ok(context.actions.list_tokens(visit.caller(), request).await?)
}

fn lines(organization: &str, user: &str, reason: &str) -> Lines {
    let call = Call::new(&["user", "revoke"], "RevokeUserTokens")
        .text("organization", "organizationId", organization)
        .text("reason", "reason", reason);
    call.about("userId", user).lines()
}

/// Revokes them. Sending the form again changes nothing.
pub(super) async fn revoke(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = sent(console, page_request, &fields).await?;
    let mut problems = Problems::default();
    let (owner, reason) =
        (Owner::read(&fields, &mut problems), confirmed(&fields, Act::Revoked, &mut problems));
    let (Some(owner), Some(reason)) = (owner, reason) else {
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
    let Owner { organization, user } = owner;
    let named = NamedUser { organization_id: organization, user_id: user, kind: OwnerKind::User };
    let revoked = context.actions.revoke_user_tokens(visit.caller(), &named, given, &touch).await;
    match revoked {
        Ok(revoked) => {
            let (organization, user) = (fields.get("organization"), fields.get("user"));
            let (path, what) = (address(organization, user), format!("{organization} {user}"));
            Ok(go_to(&notice::address(&visit, &path, Act::Revoked, &what, revoked.effective_time)))
        }
        Err(error) if is_said_there(&error) => {
            let mut page = question(console, &visit, &fields, Problems::default()).await?;
            let explanation = of_action(&error);
            page.outcome = Some(explanation.text);
            let page = console.page(&visit, explanation.status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(failed(console, page_request, error)),
    }
}

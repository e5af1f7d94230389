//! Messages to domain types and back, by pure functions; `fields` has what several of them share. Text is
//! parsed here, once, and all bad fields of a request are reported together.

use std::net::IpAddr;

use time::OffsetDateTime;

use super::fields::{
    consistency, expiration, networks, optional, order, owner_kind, page_size, request_id, scopes, states,
    token_id, whole_instant,
};
use super::grant::grant;
use crate::api::proto;
use crate::domain::event::EventKind;
use crate::domain::networks::parse_address;
use crate::domain::page::{Listing, NamePart};
use crate::domain::size::MAX_PAGE_BYTES;
use crate::domain::{
    FieldError, Labels, OrganizationId, PlanName, Scopes, Token, TokenName, UserId, Violations,
};
use crate::runtime::ROWS_PER_TURN;
use crate::secret::TokenId;
use crate::store::ChangeKind;
use crate::tokens::console_link::ConsoleLink;
use crate::tokens::create::{CreateToken, Created};
use crate::tokens::list::{ListTokens, Page};
use crate::verify::Consistency;

/// Converts the request of a caller; if it acts for one user only, that one need not be named.
pub(super) fn create_request(
    message: proto::CreateTokenRequest,
    only_user: Option<&UserId>,
) -> Result<CreateToken, Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let user_id = match only_user {
        Some(own) if message.user_id.is_empty() => Ok(own.clone()),
        _ => UserId::parse(&message.user_id),
    };
    let user_id = violations.take("user_id", user_id);
    let name = violations.take("name", TokenName::parse(&message.name));
    let expiration = expiration(message.expiration, &mut violations);
    let scopes = scopes("scopes", &message.scopes, &mut violations);
    let labels = violations.take("labels", Labels::parse(message.labels));
    let allowed_cidrs = networks("allowed_cidrs", &message.allowed_cidrs, &mut violations);
    let grant = grant(message.grant, &mut violations);
    let request_id = violations.take("request_id", request_id(&message.request_id));
    let owner_kind = violations.take("owner_kind", owner_kind(message.owner_kind));
    let plan = violations.take("plan", optional(&message.plan, PlanName::parse));
    let request = (|| {
        Some(CreateToken {
            organization_id: organization_id?,
            user_id: user_id?,
            name: name?,
            expiration: expiration?,
            scopes: scopes?,
            labels: labels?,
            allowed_cidrs: allowed_cidrs?,
            grant: grant?,
            request_id: request_id?,
            plan: plan?,
            owner_kind: owner_kind?.unwrap_or_default(),
        })
    })();
    violations.finish(request)
}

pub(super) fn create_response(created: &Created) -> proto::CreateTokenResponse {
    use secrecy::ExposeSecret as _;
    proto::CreateTokenResponse {
        token: Some((&created.token, created.now).into()),
        secret: created.secret.expose_secret().to_owned(),
    }
}

pub(super) fn get_request(message: &proto::GetTokenRequest) -> Result<TokenId, Violations> {
    let mut violations = Violations::default();
    let id = violations.take("token_id", token_id(&message.token_id));
    violations.finish(id)
}

pub(super) fn get_response((found, now): &(Token, OffsetDateTime)) -> proto::GetTokenResponse {
    proto::GetTokenResponse { token: Some((found, *now).into()) }
}

pub(super) fn list_request(message: proto::ListTokensRequest) -> Result<ListTokens, Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let user_id = violations.take("user_id", optional(&message.user_id, UserId::parse));
    let owner_kind = violations.take("owner_kind", owner_kind(message.owner_kind));
    let states = states(&message.states, &mut violations);
    let mut bound = |field, time: Option<_>| violations.take(field, time.map(whole_instant).transpose());
    let created_after = bound("created_after", message.created_after);
    let created_before = bound("created_before", message.created_before);
    let expires_before = bound("expires_before", message.expires_before);
    let unused_since = bound("unused_since", message.unused_since);
    let refused_after = bound("refused_after", message.refused_after);
    let name_contains = violations.take("name_contains", optional(&message.name_contains, NamePart::parse));
    let order = violations.take("order_by", order(&message.order_by));
    let page_size = violations.take("page_size", page_size(message.page_size));
    let request = (|| {
        Some(ListTokens {
            listing: Listing {
                organization_id: organization_id?,
                user_id: user_id?,
                owner_kind: owner_kind?,
                states,
                created_after: created_after?,
                created_before: created_before?,
                expires_before: expires_before?,
                unused_since: unused_since?,
                refused_after: refused_after?,
                never_used: message.never_used,
                name_contains: name_contains?,
                order: order?,
            },
            page_size: page_size?,
            page_token: Some(message.page_token).filter(|text| !text.is_empty()),
        })
    })();
    violations.finish(request)
}

/// Builds the response; other tasks have their turns meanwhile.
pub(super) async fn list_response(page: Page) -> proto::ListTokensResponse {
    let mut tokens = Vec::with_capacity(page.tokens.len());
    for rows in page.tokens.chunks(ROWS_PER_TURN) {
        tokens.extend(rows.iter().map(|(record, now)| proto::Token::from((record, *now))));
        tokio::task::yield_now().await;
    }
    proto::ListTokensResponse { tokens, next_page_token: page.next_page_token.unwrap_or_default() }
}

/// Returns the link below this address of the console.
pub(super) fn link_response(console: &str, link: &ConsoleLink) -> proto::CreateConsoleLinkResponse {
    use secrecy::ExposeSecret as _;
    proto::CreateConsoleLinkResponse {
        url: format!("{console}link#{}", link.code.render().expose_secret()),
        expire_time: Some(super::fields::timestamp(link.expire_time)),
    }
}

/// What a Verify request asks in addition to the secret.
pub(super) struct VerifyParams {
    pub(super) required: Scopes,
    pub(super) client_ip: Option<IpAddr>,
    pub(super) consistency: Consistency,
    pub(super) cost: u32,
    pub(super) limit: Option<PlanName>,
}

pub(super) fn verify_request(message: &proto::VerifyRequest) -> Result<VerifyParams, Violations> {
    let mut violations = Violations::default();
    let required = scopes("required_scopes", &message.required_scopes, &mut violations);
    let client_ip = violations.take("client_ip", optional(&message.client_ip, parse_address));
    let consistency = violations.take("consistency", consistency(message.consistency));
    let limit = violations.take("limit", optional(&message.limit, PlanName::parse));
    let params = (|| {
        Some(VerifyParams {
            required: required?,
            client_ip: client_ip?,
            consistency: consistency?,
            cost: message.cost.unwrap_or(1),
            limit: limit?,
        })
    })();
    violations.finish(params)
}

pub(super) fn organization(text: &str) -> Result<Option<OrganizationId>, Violations> {
    let mut violations = Violations::default();
    let organization = violations.take("organization_id", optional(text, OrganizationId::parse));
    violations.finish(organization)
}

pub(super) const fn change_kind(kind: ChangeKind) -> proto::ChangeKind {
    match kind {
        ChangeKind::Event(EventKind::Created) => proto::ChangeKind::Created,
        ChangeKind::Event(EventKind::Updated) => proto::ChangeKind::Updated,
        ChangeKind::Event(EventKind::Rotated) => proto::ChangeKind::Rotated,
        ChangeKind::Event(EventKind::Revoked) => proto::ChangeKind::Revoked,
        ChangeKind::Event(EventKind::Disabled) => proto::ChangeKind::Disabled,
        ChangeKind::Event(EventKind::Enabled) => proto::ChangeKind::Enabled,
        ChangeKind::Event(EventKind::ExpiresSoon) => proto::ChangeKind::ExpiresSoon,
        ChangeKind::Deleted => proto::ChangeKind::Deleted,
        // Events of users are no changes of a token.
        ChangeKind::Event(EventKind::Purged | EventKind::UserDisabled | EventKind::UserEnabled)
        | ChangeKind::Other => proto::ChangeKind::Other,
    }
}

pub(super) fn no_request() -> Violations {
    Violations::one("request", &FieldError::Required)
}

/// The most bytes of a page as a message: what it lists, its page token, and the framing.
pub(super) const MAX_PAGE: usize = MAX_PAGE_BYTES + 1024;

/// Returns the most bytes of a page of `number` elements of at most `each` bytes.
pub(super) fn page_bytes(number: i32, each: usize) -> usize {
    // An invalid size is refused later, so it counts as 0.
    let size = page_size(number).map_or(0, |size| size as usize);
    size.saturating_mul(each).saturating_add(1024).min(MAX_PAGE)
}

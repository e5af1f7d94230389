//! Messages to domain types and back, by pure functions. Text is parsed here, once, and all bad
//! fields of a request are reported together.

use std::net::IpAddr;

use time::{Duration, OffsetDateTime};

use crate::api::proto;
use crate::api::proto::create_token_request;
use crate::domain::fields::MAX_EXPIRE_TIME;
use crate::domain::networks::{MAX_NETWORKS, parse_address};
use crate::domain::page::{DEFAULT_PAGE_SIZE, Listing, MAX_PAGE_SIZE, NamePart, Order};
use crate::domain::scope::MAX_SCOPES;
use crate::domain::size::MAX_PAGE_BYTES;
use crate::domain::{
    Expiration, FieldError, Labels, Network, Networks, OrganizationId, Scope, Scopes, Token, TokenName,
    TokenState, UserId, Verdict, Violations,
};
use crate::secret::{RequestId, TokenId};
use crate::store::ChangeKind;
use crate::tokens::create::{CreateToken, Created};
use crate::tokens::list::{ListTokens, Page};
use crate::verify::Consistency;

/// The most elements of a list that names states or fields: more than there are states or fields.
pub(super) const MAX_NAMES: usize = 16;

pub(super) fn create_request(message: proto::CreateTokenRequest) -> Result<CreateToken, Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let user_id = violations.take("user_id", UserId::parse(&message.user_id));
    let name = violations.take("name", TokenName::parse(&message.name));
    let expiration = expiration(message.expiration, &mut violations);
    let scopes = scopes("scopes", &message.scopes, &mut violations);
    let labels = violations.take("labels", Labels::parse(message.labels));
    let allowed_cidrs = networks(&message.allowed_cidrs, &mut violations);
    let request_id = violations.take("request_id", request_id(&message.request_id));
    let request = (|| {
        Some(CreateToken {
            organization_id: organization_id?,
            user_id: user_id?,
            name: name?,
            expiration: expiration?,
            scopes: scopes?,
            labels: labels?,
            allowed_cidrs: allowed_cidrs?,
            request_id: request_id?,
        })
    })();
    violations.finish(request)
}

pub(super) fn create_response(created: &Created) -> proto::CreateTokenResponse {
    use secrecy::ExposeSecret as _;
    proto::CreateTokenResponse {
        token: Some(token(&created.token, created.now)),
        secret: created.secret.expose_secret().to_owned(),
    }
}

pub(super) fn get_request(message: &proto::GetTokenRequest) -> Result<TokenId, Violations> {
    let mut violations = Violations::default();
    let id = violations.take("token_id", token_id(&message.token_id));
    violations.finish(id)
}

pub(super) fn get_response((found, now): &(Token, OffsetDateTime)) -> proto::GetTokenResponse {
    proto::GetTokenResponse { token: Some(token(found, *now)) }
}

pub(super) fn list_request(message: proto::ListTokensRequest) -> Result<ListTokens, Violations> {
    let mut violations = Violations::default();
    let organization_id =
        violations.take("organization_id", optional(&message.organization_id, OrganizationId::parse));
    let user_id = violations.take("user_id", optional(&message.user_id, UserId::parse));
    let states = states(&message.states, &mut violations);
    let mut moment = |field, time: Option<_>| violations.take(field, time.map(whole_instant).transpose());
    let created_after = moment("created_after", message.created_after);
    let created_before = moment("created_before", message.created_before);
    let expires_before = moment("expires_before", message.expires_before);
    let unused_since = moment("unused_since", message.unused_since);
    let name_contains = violations.take("name_contains", optional(&message.name_contains, NamePart::parse));
    let order = violations.take("order_by", order(&message.order_by));
    let page_size = violations.take("page_size", page_size(message.page_size));
    let request = (|| {
        Some(ListTokens {
            listing: Listing {
                organization_id: organization_id?,
                user_id: user_id?,
                states,
                created_after: created_after?,
                created_before: created_before?,
                expires_before: expires_before?,
                unused_since: unused_since?,
                name_contains: name_contains?,
                order: order?,
            },
            page_size: page_size?,
            page_token: Some(message.page_token).filter(|text| !text.is_empty()),
        })
    })();
    violations.finish(request)
}

pub(super) fn list_response(page: Page) -> proto::ListTokensResponse {
    proto::ListTokensResponse {
        tokens: page.tokens.iter().map(|(record, now)| token(record, *now)).collect(),
        next_page_token: page.next_page_token.unwrap_or_default(),
    }
}

/// What a Verify request asks in addition to the secret.
pub(super) struct Wanted {
    pub(super) required: Scopes,
    pub(super) client_ip: Option<IpAddr>,
    pub(super) consistency: Consistency,
}

pub(super) fn verify_request(message: &proto::VerifyRequest) -> Result<Wanted, Violations> {
    let mut violations = Violations::default();
    let required = scopes("required_scopes", &message.required_scopes, &mut violations);
    let client_ip = violations.take("client_ip", optional(&message.client_ip, parse_address));
    let consistency = violations.take("consistency", self::consistency(message.consistency));
    let wanted =
        (|| Some(Wanted { required: required?, client_ip: client_ip?, consistency: consistency? }))();
    violations.finish(wanted)
}

pub(super) fn organization(text: &str) -> Result<Option<OrganizationId>, Violations> {
    let mut violations = Violations::default();
    let organization = violations.take("organization_id", optional(text, OrganizationId::parse));
    violations.finish(organization)
}

pub(super) const fn change_kind(kind: ChangeKind) -> proto::ChangeKind {
    match kind {
        ChangeKind::Created => proto::ChangeKind::Created,
        ChangeKind::Updated => proto::ChangeKind::Updated,
        ChangeKind::Rotated => proto::ChangeKind::Rotated,
        ChangeKind::Revoked => proto::ChangeKind::Revoked,
        ChangeKind::Disabled => proto::ChangeKind::Disabled,
        ChangeKind::Enabled => proto::ChangeKind::Enabled,
        ChangeKind::ExpiresSoon => proto::ChangeKind::ExpiresSoon,
        ChangeKind::Deleted => proto::ChangeKind::Deleted,
        ChangeKind::Other => proto::ChangeKind::Other,
    }
}

pub(super) fn proto_duration(duration: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Below 10^9, which fits.
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

pub(super) fn no_request() -> Violations {
    Violations::one("request", &FieldError::Required)
}

pub(super) fn consistency(number: i32) -> Result<Consistency, FieldError> {
    match proto::Consistency::try_from(number) {
        Ok(proto::Consistency::Unspecified | proto::Consistency::Bounded) => Ok(Consistency::Bounded),
        Ok(proto::Consistency::Full) => Ok(Consistency::Full),
        Err(_) => Err(FieldError::Rule("is not a consistency")),
    }
}

pub(super) const fn verdict(verdict: Verdict) -> proto::Verdict {
    match verdict {
        Verdict::Valid => proto::Verdict::Valid,
        Verdict::Malformed => proto::Verdict::Malformed,
        Verdict::NotFound => proto::Verdict::NotFound,
        Verdict::Revoked => proto::Verdict::Revoked,
        Verdict::Expired => proto::Verdict::Expired,
        Verdict::Disabled => proto::Verdict::Disabled,
        Verdict::MissingScope => proto::Verdict::MissingScope,
        Verdict::IpNotAllowed => proto::Verdict::IpNotAllowed,
        // There is no other; a test checks that this list is complete.
        _ => proto::Verdict::Unspecified,
    }
}

pub(super) const fn state(state: TokenState) -> proto::TokenState {
    match state {
        TokenState::Active => proto::TokenState::Active,
        TokenState::Expired => proto::TokenState::Expired,
        TokenState::Revoked => proto::TokenState::Revoked,
        TokenState::Disabled => proto::TokenState::Disabled,
        // There is no other, as for verdicts.
        _ => proto::TokenState::Unspecified,
    }
}

pub(super) fn token(token: &Token, now: OffsetDateTime) -> proto::Token {
    proto::Token {
        id: token.id.to_string(),
        organization_id: token.organization_id.as_str().to_owned(),
        user_id: token.user_id.as_str().to_owned(),
        name: token.name.as_str().to_owned(),
        scopes: token.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        labels: token.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        allowed_cidrs: token.allowed_cidrs.iter().map(ToString::to_string).collect(),
        state: state(token.state(now)).into(),
        create_time: Some(timestamp(token.create_time)),
        created_by: token.created_by.to_string(),
        expire_time: token.expire_time.map(timestamp),
        last_use_time: token.last_use_time.map(timestamp),
        revoke_time: token.revoke_time.map(timestamp),
        revoke_reason: token.revoke_reason.as_ref().map_or_else(String::new, |r| r.as_str().to_owned()),
        rotated_from: token.rotated_from.map_or_else(String::new, |id| id.to_string()),
        disable_time: token.disable_time.map(timestamp),
    }
}

pub(super) fn expiration(
    choice: Option<create_token_request::Expiration>,
    violations: &mut Violations,
) -> Option<Expiration> {
    use create_token_request::Expiration as Choice;
    match choice {
        None => {
            const NONE: FieldError =
                FieldError::Rule("is required: choose expire_time, ttl or no_expiration");
            violations.take("expiration", Err(NONE))
        }
        Some(Choice::ExpireTime(time)) => violations.take("expire_time", instant(time)).map(Expiration::At),
        Some(Choice::Ttl(ttl)) => violations.take("ttl", duration(ttl)).map(Expiration::After),
        Some(Choice::NoExpiration(true)) => Some(Expiration::Never),
        Some(Choice::NoExpiration(false)) => violations.take(
            "no_expiration",
            Err(FieldError::Rule("must be true when it is chosen; else choose expire_time or ttl")),
        ),
    }
}

/// The last instant that both Postgres and the `time` crate can represent.
const LAST_MICROSECOND: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59.999_999 UTC);

/// Reads a `google.protobuf.Timestamp`, at most the latest allowed expiration time.
fn instant(time: prost_types::Timestamp) -> Result<OffsetDateTime, FieldError> {
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    OffsetDateTime::from_unix_timestamp(time.seconds)
        .ok()
        .filter(|time| time.year() >= 1 && *time <= MAX_EXPIRE_TIME)
        .and_then(|time| time.replace_nanosecond(nanos?).ok())
        .ok_or(FieldError::Rule("is not a time between 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z"))
}

/// Reads an instant to compare others with, rounded up to whole microseconds. Postgres keeps no
/// more, so the same instants lie before it as without rounding.
pub(super) fn whole_instant(time: prost_types::Timestamp) -> Result<OffsetDateTime, FieldError> {
    let time = instant(time)?;
    let rest = time.nanosecond().next_multiple_of(1_000).saturating_sub(time.nanosecond());
    // There is no later microsecond, and nothing lies after it.
    Ok(time.checked_add(Duration::nanoseconds(i64::from(rest))).unwrap_or(LAST_MICROSECOND))
}

fn duration(given: prost_types::Duration) -> Result<Duration, FieldError> {
    let duration = positive(given).filter(|duration| duration.is_positive());
    duration.ok_or(FieldError::Rule("is not a duration above zero"))
}

/// Reads a `google.protobuf.Duration` that is not negative; `None` if it is negative or not well-formed.
pub(super) fn positive(given: prost_types::Duration) -> Option<Duration> {
    // Seconds and nanos have the same sign.
    let well_formed = given.seconds >= 0 && (0..1_000_000_000).contains(&given.nanos);
    well_formed
        .then(|| Duration::seconds(given.seconds).saturating_add(Duration::nanoseconds(given.nanos.into())))
}

pub(super) fn scopes(field: &'static str, texts: &[String], violations: &mut Violations) -> Option<Scopes> {
    if texts.len() > MAX_SCOPES {
        return violations.take(field, Err(FieldError::TooLong { limit: MAX_SCOPES, unit: "scopes" }));
    }
    let parsed: Vec<Scope> = texts
        .iter()
        .enumerate()
        .filter_map(|(index, text)| match Scope::parse(text) {
            Ok(scope) => Some(scope),
            // The field name is built only for an error: every Verify runs this code.
            error => violations.take(&format!("{field}[{index}]"), error),
        })
        .collect();
    violations.take(field, Scopes::new(parsed))
}

pub(super) fn networks(texts: &[String], violations: &mut Violations) -> Option<Networks> {
    const FIELD: &str = "allowed_cidrs";
    if texts.len() > MAX_NETWORKS {
        return violations.take(FIELD, Err(FieldError::TooLong { limit: MAX_NETWORKS, unit: "networks" }));
    }
    let parsed = texts
        .iter()
        .enumerate()
        .filter_map(|(index, text)| violations.take(&format!("{FIELD}[{index}]"), Network::parse(text)))
        .collect();
    violations.take(FIELD, Networks::new(parsed))
}

fn states(numbers: &[i32], violations: &mut Violations) -> Vec<TokenState> {
    let mut states = Vec::new();
    if numbers.len() > MAX_NAMES {
        violations.add("states", &FieldError::TooLong { limit: MAX_NAMES, unit: "states" });
        return states;
    }
    for (index, number) in numbers.iter().enumerate() {
        let state = match proto::TokenState::try_from(*number) {
            Ok(proto::TokenState::Active) => Ok(TokenState::Active),
            Ok(proto::TokenState::Expired) => Ok(TokenState::Expired),
            Ok(proto::TokenState::Revoked) => Ok(TokenState::Revoked),
            Ok(proto::TokenState::Disabled) => Ok(TokenState::Disabled),
            Ok(proto::TokenState::Unspecified) | Err(_) => Err(FieldError::Rule("is not a state")),
        };
        if let Some(state) = violations.take(&format!("states[{index}]"), state)
            && !states.contains(&state)
        {
            states.push(state);
        }
    }
    states
}

fn order(text: &str) -> Result<Order, FieldError> {
    match text {
        "" | "create_time desc" => Ok(Order::CreateTimeDescending),
        "expire_time" => Ok(Order::ExpireTime),
        _ => Err(FieldError::Rule("is neither 'create_time desc' nor 'expire_time'")),
    }
}

pub(super) fn page_size(number: i32) -> Result<u32, FieldError> {
    match u32::try_from(number) {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(size) => Ok(size.min(MAX_PAGE_SIZE)),
        Err(_) => Err(FieldError::Rule("is negative")),
    }
}

/// The most bytes of a page as a message: what it lists, its page token, and the framing.
pub(super) const LONGEST_PAGE: usize = MAX_PAGE_BYTES + 1024;

/// Returns the most bytes of a page of `number` elements of at most `each` bytes.
pub(super) fn page_bytes(number: i32, each: usize) -> usize {
    // An invalid size is refused later, so it counts as 0.
    let size = page_size(number).map_or(0, |size| size as usize);
    size.saturating_mul(each).saturating_add(1024).min(LONGEST_PAGE)
}

/// Reads a request id; empty means none.
pub(super) fn request_id(text: &str) -> Result<Option<RequestId>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = RequestId::parse(text);
    parsed.map(Some).map_err(|_| FieldError::Rule("is not a UUID of version 4 in its hyphenated form"))
}

pub(super) fn token_id(text: &str) -> Result<TokenId, FieldError> {
    if text.is_empty() {
        return Err(FieldError::Required);
    }
    TokenId::parse(text).map_err(|_| FieldError::Rule("is not an id of 22 base62 characters"))
}

pub(super) fn optional<T>(
    text: &str,
    parse: fn(&str) -> Result<T, FieldError>,
) -> Result<Option<T>, FieldError> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

pub(super) fn timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        // Below 10^9, which fits.
        nanos: i32::try_from(time.nanosecond()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_and_every_state_has_its_own_number() {
        let numbers: std::collections::BTreeSet<i32> =
            Verdict::ALL.map(|known| verdict(known).into()).into_iter().collect();
        assert!(numbers.len() == Verdict::ALL.len() && !numbers.contains(&0), "{numbers:?}");
        let numbers: std::collections::BTreeSet<i32> =
            TokenState::ALL.map(|known| state(known).into()).into_iter().collect();
        assert!(numbers.len() == TokenState::ALL.len() && !numbers.contains(&0), "{numbers:?}");
    }
}

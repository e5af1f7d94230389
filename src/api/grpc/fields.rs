//! The fields of messages to domain types and back, one by one, by pure functions: what several messages
//! share. A field that breaks a rule is reported by its name.

use time::{Duration, OffsetDateTime};

use crate::api::proto;
use crate::api::proto::create_token_request;
pub(super) use crate::api::proto::timestamp;
use crate::domain::fields::MAX_EXPIRE_TIME;
use crate::domain::networks::MAX_NETWORKS;
use crate::domain::page::{DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Order};
use crate::domain::scope::MAX_SCOPES;
use crate::domain::{
    Expiration, FieldError, Network, Networks, OwnerKind, Scope, Scopes, TokenState, Violations,
};
use crate::secret::{RequestId, TokenId};
use crate::verify::Consistency;

/// The most elements of a list that names states, kinds or fields: more than there are of each.
pub(super) const MAX_NAMES: usize = 16;

pub(super) fn consistency(number: i32) -> Result<Consistency, FieldError> {
    match proto::Consistency::try_from(number) {
        Ok(proto::Consistency::Unspecified | proto::Consistency::Bounded) => Ok(Consistency::Bounded),
        Ok(proto::Consistency::Full) => Ok(Consistency::Full),
        Err(_) => Err(FieldError::Rule("is not a consistency")),
    }
}

/// Reads what a user id names; `None`: the request does not say.
pub(super) fn owner_kind(number: i32) -> Result<Option<OwnerKind>, FieldError> {
    match proto::OwnerKind::try_from(number) {
        Ok(proto::OwnerKind::Unspecified) => Ok(None),
        Ok(proto::OwnerKind::User) => Ok(Some(OwnerKind::User)),
        Ok(proto::OwnerKind::Service) => Ok(Some(OwnerKind::Service)),
        Err(_) => Err(FieldError::Rule("is not a kind of owner")),
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

pub(super) fn networks(field: &str, texts: &[String], violations: &mut Violations) -> Option<Networks> {
    if texts.len() > MAX_NETWORKS {
        return violations.take(field, Err(FieldError::TooLong { limit: MAX_NETWORKS, unit: "networks" }));
    }
    let parsed = texts
        .iter()
        .enumerate()
        .filter_map(|(index, text)| violations.take(&format!("{field}[{index}]"), Network::parse(text)))
        .collect();
    violations.take(field, Networks::new(parsed))
}

pub(super) fn states(numbers: &[i32], violations: &mut Violations) -> Vec<TokenState> {
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

pub(super) fn order(text: &str) -> Result<Order, FieldError> {
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

pub(super) fn proto_duration(duration: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Below 10^9, which fits.
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

//! The messages of RPCs that change tokens, to domain types and back, by pure functions; `convert`
//! does the others.

use time::{Duration, OffsetDateTime};

use super::fields::{
    MAX_NAMES, expiration, networks, optional, positive, request_id, scopes, timestamp, token_id,
};
use super::grant::grant;
use crate::api::proto;
use crate::api::proto::{
    create_token_request, revoke_token_request, rotate_token_request, update_token_request,
};
use crate::domain::policy::MAX_GRACE;
use crate::domain::root::LastRoot;
use crate::domain::{
    Caller, FieldError, Labels, OrganizationId, PlanName, RevokeReason, Token, TokenName, Violations,
};
use crate::secret::TokenId;
use crate::tokens::create::Created;
use crate::tokens::disable::TokenUsability;
use crate::tokens::revoke::{RevocationExtent, Revoked, RevokedUser};
use crate::tokens::rotate::RotateToken;
use crate::tokens::update::TokenChange;

/// The shortest grace period of a token that rotates itself: time for a retry after a lost response.
const MIN_OWN_GRACE: Duration = Duration::minutes(1);

/// The paths that an update mask may name.
const PATHS: [&str; 7] = ["name", "labels", "scopes", "allowed_cidrs", "expiration", "grant", "plan"];

pub(super) fn update_request(
    message: proto::UpdateTokenRequest,
) -> Result<(TokenId, TokenChange), Violations> {
    let mut violations = Violations::default();
    let id = violations.take("token_id", token_id(&message.token_id));
    let mut mask = message.update_mask.unwrap_or_default().paths;
    check_mask(&mask, &mut violations);
    mask.truncate(MAX_NAMES);
    let mut named = |path: &str, field, is_set: bool| {
        let named = mask.iter().any(|named| named == path);
        if is_set && !named {
            // If it were accepted, it would be ignored, and the client would think it was applied.
            let _ = violations.take::<()>(field, Err(FieldError::Rule("is set, but update_mask lacks it")));
        }
        named
    };
    let name = named("name", "name", !message.name.is_empty());
    let labels = named("labels", "labels", !message.labels.is_empty());
    let scoped = named("scopes", "scopes", !message.scopes.is_empty());
    let ends = named("expiration", "expiration", message.expiration.is_some());
    let granted = named("grant", "grant", message.grant.is_some());
    let bound = named("allowed_cidrs", "allowed_cidrs", !message.allowed_cidrs.is_empty());
    let planned = named("plan", "plan", !message.plan.is_empty());
    let change = TokenChange {
        name: name.then(|| violations.take("name", TokenName::parse(&message.name))).flatten(),
        labels: labels.then(|| violations.take("labels", Labels::parse(message.labels))).flatten(),
        scopes: scoped.then(|| scopes("scopes", &message.scopes, &mut violations)).flatten(),
        expiration: ends.then(|| expiration(message.expiration.map(of_update), &mut violations)).flatten(),
        allowed_cidrs: bound
            .then(|| networks("allowed_cidrs", &message.allowed_cidrs, &mut violations))
            .flatten(),
        grant: granted.then(|| grant(message.grant, &mut violations)).flatten(),
        plan: planned.then(|| violations.take("plan", optional(&message.plan, PlanName::parse))).flatten(),
        last_root: LastRoot::forced(message.force),
    };
    violations.finish(id.map(|id| (id, change)))
}

fn check_mask(paths: &[String], violations: &mut Violations) {
    if paths.is_empty() {
        violations.add("update_mask", &FieldError::Required);
    }
    if paths.len() > MAX_NAMES {
        violations.add("update_mask", &FieldError::TooLong { limit: MAX_NAMES, unit: "paths" });
        return;
    }
    for (index, path) in paths.iter().enumerate() {
        if !PATHS.contains(&path.as_str()) {
            const UNKNOWN: FieldError = FieldError::Rule(
                "is not one of name, labels, scopes, allowed_cidrs, expiration, grant, plan",
            );
            violations.add(&format!("update_mask.paths[{index}]"), &UNKNOWN);
        }
    }
}

pub(super) fn update_response((changed, now): &(Token, OffsetDateTime)) -> proto::UpdateTokenResponse {
    proto::UpdateTokenResponse { token: Some((changed, *now).into()) }
}

/// Defines the conversion of the choice of one message to that of another; they differ only by their types.
macro_rules! same_choice {
    ($name:ident, $message:ident) => {
        fn $name(choice: $message::Expiration) -> create_token_request::Expiration {
            match choice {
                $message::Expiration::ExpireTime(time) => create_token_request::Expiration::ExpireTime(time),
                $message::Expiration::Ttl(ttl) => create_token_request::Expiration::Ttl(ttl),
                $message::Expiration::NoExpiration(chosen) => {
                    create_token_request::Expiration::NoExpiration(chosen)
                }
            }
        }
    };
}

same_choice!(of_update, update_token_request);
same_choice!(of_rotation, rotate_token_request);

/// Returns whether a caller names its own token.
pub(super) fn rotates_itself(caller: &Caller, message: &proto::RotateTokenRequest) -> bool {
    TokenId::parse(&message.token_id).is_ok_and(|id| caller.is_token(id))
}

pub(super) fn rotate_request(
    caller: &Caller,
    message: &proto::RotateTokenRequest,
) -> Result<RotateToken, Violations> {
    let mut violations = Violations::default();
    let id = violations.take("token_id", token_id(&message.token_id));
    let expiration = match message.expiration {
        None => Some(None),
        Some(choice) => expiration(Some(of_rotation(choice)), &mut violations).map(Some),
    };
    let grace_period = violations.take("grace_period", grace_period(message.grace_period));
    let request_id = violations.take("request_id", request_id(&message.request_id));
    if rotates_itself(caller, message) {
        if message.expiration.is_some() {
            const OWN_END: FieldError = FieldError::Rule("cannot be chosen by a token that rotates itself");
            violations.add("expiration", &OWN_END);
        }
        if grace_period.is_some_and(|grace| grace < MIN_OWN_GRACE) {
            const SHORT: FieldError = FieldError::Rule("is below 60 s, where a token rotates itself");
            violations.add("grace_period", &SHORT);
        }
        if matches!(request_id, Some(None)) {
            violations.add("request_id", &FieldError::Required);
        }
    }
    let request = (|| {
        Some(RotateToken {
            id: id?,
            expiration: expiration?,
            grace_period: grace_period?,
            request_id: request_id?,
            last_root: LastRoot::forced(message.force),
        })
    })();
    violations.finish(request)
}

fn grace_period(given: Option<prost_types::Duration>) -> Result<Duration, FieldError> {
    let Some(given) = given else { return Ok(Duration::ZERO) };
    let grace = positive(given).filter(|grace| *grace <= MAX_GRACE);
    grace.ok_or(FieldError::Rule("is not a duration from 0 to 30 days"))
}

pub(super) fn rotate_response(created: &Created) -> proto::RotateTokenResponse {
    use secrecy::ExposeSecret as _;
    proto::RotateTokenResponse {
        token: Some((&created.token, created.now).into()),
        secret: created.secret.expose_secret().to_owned(),
    }
}

/// What a revocation names: the target, the extent and the reason.
pub(super) struct Revocation<'a> {
    pub(super) target: Target<'a>,
    pub(super) extent: RevocationExtent,
    pub(super) reason: RevokeReason,
    pub(super) last_root: LastRoot,
}

/// How a request names the token to be revoked.
pub(super) enum Target<'a> {
    Id(TokenId),
    Secret(&'a str),
}

pub(super) fn revoke_request(message: &proto::RevokeTokenRequest) -> Result<Revocation<'_>, Violations> {
    let mut violations = Violations::default();
    let target = match &message.target {
        None => violations.take("token_id", Err(FieldError::Required)),
        Some(revoke_token_request::Target::TokenId(text)) => {
            violations.take("token_id", token_id(text)).map(Target::Id)
        }
        Some(revoke_token_request::Target::Secret(text)) => Some(Target::Secret(text)),
    };
    let reason = violations.take("reason", RevokeReason::parse(&message.reason));
    let extent = if message.only_this { RevocationExtent::OnlyThis } else { RevocationExtent::Family };
    let last_root = LastRoot::forced(message.force);
    let revocation =
        target.zip(reason).map(|(target, reason)| Revocation { target, extent, reason, last_root });
    violations.finish(revocation)
}

pub(super) fn no_secret() -> Violations {
    Violations::one("secret", &FieldError::Rule("does not have the form of a secret"))
}

/// Builds the response: the whole token, or the few fields that a caller may see that only
/// presented its secret.
pub(super) fn revoke_response(revoked: &Revoked, may_see: bool) -> proto::RevokeTokenResponse {
    let Revoked { token: record, effective_time } = revoked;
    let shown = if may_see {
        (record, *effective_time).into()
    } else {
        proto::Token {
            id: record.id.to_string(),
            state: proto::TokenState::from(record.state(*effective_time)).into(),
            revoke_time: record.revoke_time.map(timestamp),
            ..proto::Token::default()
        }
    };
    proto::RevokeTokenResponse { token: Some(shown), effective_time: Some(timestamp(*effective_time)) }
}

/// Reads the token that is to be disabled or enabled, and the reason.
pub(super) fn usability_request(id: &str, reason: &str) -> Result<(TokenId, RevokeReason), Violations> {
    let mut violations = Violations::default();
    let id = violations.take("token_id", token_id(id));
    let reason = violations.take("reason", RevokeReason::parse(reason));
    violations.finish(id.zip(reason))
}

pub(super) fn disable_response(changed: &TokenUsability) -> proto::DisableTokenResponse {
    proto::DisableTokenResponse {
        token: Some((&changed.token, changed.now).into()),
        effective_time: Some(timestamp(changed.effective_time)),
    }
}

pub(super) fn enable_response(changed: &TokenUsability) -> proto::EnableTokenResponse {
    proto::EnableTokenResponse {
        token: Some((&changed.token, changed.now).into()),
        effective_time: Some(timestamp(changed.effective_time)),
    }
}

pub(super) fn revoke_user_response(
    revoked: &RevokedUser,
    organization_id: &OrganizationId,
) -> proto::RevokeUserTokensResponse {
    proto::RevokeUserTokensResponse {
        revoked_count: i64::try_from(revoked.count).unwrap_or(i64::MAX),
        effective_time: Some(timestamp(revoked.effective_time)),
        organization_id: organization_id.as_str().to_owned(),
    }
}

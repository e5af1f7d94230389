//! Messages that change a token to domain types and back, by pure functions, as `convert` does for the others.

use time::OffsetDateTime;

use super::convert::{expiration, networks, scopes, token, token_id};
use super::proto::{self, create_token_request, update_token_request};
use crate::actions::update::TokenChange;
use crate::domain::{FieldError, Labels, Token, TokenName, Violations};
use crate::secret::TokenId;

/// What a mask may name.
const PATHS: [&str; 5] = ["name", "labels", "scopes", "allowed_cidrs", "expiration"];

pub(super) fn update_request(
    message: proto::UpdateTokenRequest,
) -> Result<(TokenId, TokenChange), Violations> {
    let mut violations = Violations::default();
    let id = violations.take("token_id", token_id(&message.token_id));
    let mask = message.update_mask.unwrap_or_default().paths;
    check_mask(&mask, &mut violations);
    let mut named = |path: &str, field, is_set: bool| {
        let named = mask.iter().any(|named| named == path);
        if is_set && !named {
            // Accepted, it would be ignored, and its sender would believe it done.
            let _ = violations.take::<()>(field, Err(FieldError::Rule("is set, but update_mask lacks it")));
        }
        named
    };
    let name = named("name", "name", !message.name.is_empty());
    let labels = named("labels", "labels", !message.labels.is_empty());
    let scoped = named("scopes", "scopes", !message.scopes.is_empty());
    let ends = named("expiration", "expiration", message.expiration.is_some());
    let bound = named("allowed_cidrs", "allowed_cidrs", !message.allowed_cidrs.is_empty());
    let change = TokenChange {
        name: name.then(|| violations.take("name", TokenName::parse(&message.name))).flatten(),
        labels: labels.then(|| violations.take("labels", Labels::parse(message.labels))).flatten(),
        scopes: scoped.then(|| scopes("scopes", &message.scopes, &mut violations)).flatten(),
        expiration: ends.then(|| expiration(message.expiration.map(Into::into), &mut violations)).flatten(),
        allowed_cidrs: bound.then(|| networks(&message.allowed_cidrs, &mut violations)).flatten(),
    };
    violations.finish(id.map(|id| (id, change)))
}

fn check_mask(paths: &[String], violations: &mut Violations) {
    if paths.is_empty() {
        violations.add("update_mask", &FieldError::Required);
    }
    for (index, path) in paths.iter().enumerate() {
        if !PATHS.contains(&path.as_str()) {
            const UNKNOWN: FieldError =
                FieldError::Rule("is none of name, labels, scopes, allowed_cidrs, expiration");
            violations.add(&format!("update_mask.paths[{index}]"), &UNKNOWN);
        }
    }
}

pub(super) fn update_response((changed, now): &(Token, OffsetDateTime)) -> proto::UpdateTokenResponse {
    proto::UpdateTokenResponse { token: Some(token(changed, *now)) }
}

impl From<update_token_request::Expiration> for create_token_request::Expiration {
    fn from(choice: update_token_request::Expiration) -> Self {
        match choice {
            update_token_request::Expiration::ExpireTime(time) => Self::ExpireTime(time),
            update_token_request::Expiration::Ttl(ttl) => Self::Ttl(ttl),
            update_token_request::Expiration::NoExpiration(chosen) => Self::NoExpiration(chosen),
        }
    }
}

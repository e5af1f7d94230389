//! The message of a grant to the domain type, by a pure function. Each text that breaks a rule is reported by its own
//! name.

use super::fields::{networks, scopes};
use super::policies::lifetime;
use crate::api::proto;
use crate::domain::grant::{Grant, MAX_USERS, Users};
use crate::domain::{FieldError, UserId, UserPrefix, Violations};

/// Reads an optional grant; the outer `None`: it breaks a rule.
#[expect(clippy::option_option, reason = "a field that is not valid, and one that is not set")]
pub(super) fn grant(message: Option<proto::Grant>, violations: &mut Violations) -> Option<Option<Grant>> {
    let Some(message) = message else { return Some(None) };
    let given = scopes("grant.scopes", &message.scopes, violations);
    let networks = networks("grant.networks", &message.networks, violations);
    let longest =
        violations.take("grant.longest_lifetime", message.longest_lifetime.map(lifetime).transpose());
    let users = users(&message, violations);
    let grant = Grant {
        scopes: given?,
        users: users?,
        longest_lifetime: longest?,
        networks: networks?,
        may_grant_self: message.may_grant_self,
    };
    let checked = grant.check().map(|()| Some(grant));
    violations.take("grant", checked)
}

fn users(message: &proto::Grant, violations: &mut Violations) -> Option<Users> {
    if message.users.len().saturating_add(message.user_prefixes.len()) > MAX_USERS {
        const TOO_MANY: FieldError = FieldError::TooLong { limit: MAX_USERS, unit: "users and prefixes" };
        return violations.take("grant.users", Err(TOO_MANY));
    }
    let ids = parsed("grant.users", &message.users, UserId::parse, violations);
    let prefixes = parsed("grant.user_prefixes", &message.user_prefixes, UserPrefix::parse, violations);
    violations.take("grant.users", Users::new(ids, prefixes, message.all_users))
}

fn parsed<T>(
    field: &str,
    texts: &[String],
    parse: fn(&str) -> Result<T, FieldError>,
    violations: &mut Violations,
) -> Vec<T> {
    let texts = texts.iter().enumerate();
    texts.filter_map(|(index, text)| violations.take(&format!("{field}[{index}]"), parse(text))).collect()
}

//! A token as JSON and for people, field by field as the contract declares them: one that is added to
//! the contract is shown without a change here. Used by every command that prints tokens.

use serde::{Serialize, Serializer};
use tokend_client::proto;

use super::output::{aligned, to_the_second};
use crate::api::message_json::{ALWAYS_OF_TOKEN, MessageJson};

/// The names for people of the fields whose own names are not shown; those with an empty one are not
/// shown to people.
const LABELS: [(&str, &str); 14] = [
    ("organization_id", "organization"),
    ("user_id", "user"),
    ("labels", "label"),
    ("allowed_cidrs", "networks"),
    ("create_time", "created"),
    ("created_by", ""),
    ("expire_time", "expires"),
    ("last_use_time", "last used"),
    ("revoke_time", "revoked"),
    ("revoke_reason", "reason"),
    ("disable_time", "disabled"),
    ("user_disable_time", "user disabled"),
    ("owner_kind", "owner"),
    ("family_id", "family"),
];

/// A token as JSON.
pub(super) struct TokenJson<'a>(&'a proto::Token);

impl<'a> From<&'a proto::Token> for TokenJson<'a> {
    fn from(token: &'a proto::Token) -> Self {
        Self(token)
    }
}

impl Serialize for TokenJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        MessageJson::new("Token", self.0, &ALWAYS_OF_TOKEN).serialize(serializer)
    }
}

/// Formats a token for people, one field per line.
pub(super) fn token_lines(token: &proto::Token) -> String {
    let mut rows = Vec::new();
    let always = [&ALWAYS_OF_TOKEN[..], &["expire_time"]].concat();
    for json in MessageJson::new("Token", token, &always).fields() {
        let field = &json.field;
        let label = LABELS.iter().find(|(name, _)| *name == field.name());
        let label = label.map_or_else(|| field.name().replace('_', " "), |(_, label)| (*label).to_owned());
        if label.is_empty() {
            continue;
        }
        let row = |text| vec![label.clone(), text];
        match (field.name(), serde_json::to_value(&json).unwrap_or_default()) {
            ("state", _) => rows.push(row(state_word(token))),
            ("expire_time", _) => rows.push(row(expires(token))),
            // Most are persons.
            ("owner_kind", _) if token.owner_kind() == proto::OwnerKind::Service => {
                rows.push(row("service account".to_owned()));
            }
            ("owner_kind", _) => {}
            ("last_refusal", _) => {
                rows.push(row(token.last_refusal.as_ref().map(refusal).unwrap_or_default()));
            }
            (_, serde_json::Value::Object(entries)) => {
                rows.extend(entries.iter().map(|(key, value)| row(format!("{key}={}", plain(value)))));
            }
            (_, shown) => rows.push(row(json.time().map_or_else(|| plain(&shown), to_the_second))),
        }
    }
    aligned(rows)
}

/// Formats a token's expiration for people; without one, `never`.
pub(super) fn expires(token: &proto::Token) -> String {
    token.expire_time.map_or_else(|| "never".to_owned(), to_the_second)
}

/// Returns a state for people: `active`.
pub(super) fn state_word(token: &proto::Token) -> String {
    let name = proto::TokenState::try_from(token.state)
        .map_or_else(|unknown| unknown.0.to_string(), |state| state.as_str_name().to_lowercase());
    name.trim_start_matches("token_state_").to_owned()
}

/// Formats a refusal for people: when, why, and from where.
fn refusal(refusal: &proto::LastRefusal) -> String {
    let time = refusal.refusal_time.map(to_the_second).unwrap_or_default();
    let verdict = proto::Verdict::try_from(refusal.verdict)
        .map_or_else(|unknown| unknown.0.to_string(), |verdict| verdict.as_str_name().to_lowercase());
    let verdict = verdict.trim_start_matches("verdict_").replace('_', " ");
    let missing = if refusal.missing_scopes.is_empty() {
        String::new()
    } else {
        format!(" {}", refusal.missing_scopes.join(" "))
    };
    let from =
        if refusal.client_ip.is_empty() { String::new() } else { format!(" from {}", refusal.client_ip) };
    format!("{time} {verdict}{missing}{from}")
}

/// Formats a value for people.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::cli::output::json_line;

    #[test]
    fn json_names_fields_states_and_times_as_protobuf_does() {
        let token = proto::Token {
            id: "id".to_owned(),
            user_id: "u".to_owned(),
            state: proto::TokenState::Active.into(),
            expire_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 }),
            ..proto::Token::default()
        };

        let line = json_line(&TokenJson::from(&token)).unwrap();

        assert_eq!(
            line,
            "{\"id\":\"id\",\"organizationId\":\"\",\"userId\":\"u\",\"name\":\"\",\
             \"state\":\"TOKEN_STATE_ACTIVE\",\"createdBy\":\"\",\
             \"expireTime\":\"2023-11-14T22:13:20.500Z\"}\n"
        );
    }

    #[test]
    fn people_see_each_field_on_a_line_of_its_own() {
        let token = proto::Token {
            id: "id".to_owned(),
            scopes: vec!["a".to_owned(), "b:*".to_owned()],
            labels: [("team".to_owned(), "x".to_owned()), ("a".to_owned(), "y".to_owned())].into(),
            state: 99,
            grant: Some(proto::Grant {
                users: vec!["ada".to_owned(), "bob".to_owned()],
                longest_lifetime: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
                ..proto::Grant::default()
            }),
            last_use_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 }),
            last_refusal: Some(proto::LastRefusal {
                refusal_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }),
                verdict: proto::Verdict::MissingScope.into(),
                missing_scopes: vec!["a:b".to_owned(), "c".to_owned()],
                client_ip: "192.0.2.1".to_owned(),
            }),
            ..proto::Token::default()
        };

        assert_eq!(
            token_lines(&token),
            "id            id\norganization\nuser\nname\nscopes        a b:*\nlabel         a=y\n\
             label         team=x\nstate         99\nexpires       never\n\
             last used     2023-11-14T22:13:20Z\n\
             grant         longestLifetime=60s\ngrant         users=ada bob\n\
             last refusal  2023-11-14T22:13:20Z missing scope a:b c from 192.0.2.1\n"
        );
    }
}

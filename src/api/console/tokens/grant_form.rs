//! What the tokens that a token issues may have, as forms have it and pages show it. Pure functions, used by the forms for a new token
//! and for a change, and by the page of a token.

use serde_json::{Map, Value, json};
use time::Duration;

use crate::api::console::commands::Call;
use crate::api::console::form::{Fields, Problems};
use crate::api::console::pages::visible;
use crate::api::console::policy::form::{MAX_LIFETIME, duration, duration_text};
use crate::domain::grant::Users;
use crate::domain::{FieldError, Grant, Network, Networks, Scope, Scopes, UserId, UserPrefix};

/// A grant as it was typed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct GrantForm {
    /// Whether there is a grant.
    pub(super) is_set: bool,
    pub(super) scopes: String,
    /// One a line, as they may contain spaces.
    pub(super) users: String,
    pub(super) prefixes: String,
    pub(super) all_users: bool,
    pub(super) lifetime: String,
    pub(super) networks: String,
    pub(super) may_grant_self: bool,
}

impl GrantForm {
    pub(super) fn posted(fields: &Fields<'_>) -> Self {
        let text = |name| fields.get(name).trim().replace('\r', "");
        Self {
            is_set: !fields.get("grant").is_empty(),
            scopes: text("grant_scopes"),
            users: text("grant_users"),
            prefixes: text("grant_prefixes"),
            all_users: !fields.get("grant_all").is_empty(),
            lifetime: fields.typed("grant_lifetime"),
            networks: text("grant_networks"),
            may_grant_self: !fields.get("grant_self").is_empty(),
        }
    }

    /// Returns the form with what a token has.
    pub(super) fn of(grant: Option<&Grant>) -> Self {
        let Some(grant) = grant else { return Self::default() };
        Self {
            is_set: true,
            scopes: grant.scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" "),
            users: grant.users.ids().collect::<Vec<_>>().join("\n"),
            prefixes: grant.users.prefixes().collect::<Vec<_>>().join("\n"),
            all_users: grant.users.is_all(),
            lifetime: grant.longest_lifetime.map(duration_text).unwrap_or_default(),
            networks: grant.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            may_grant_self: grant.may_grant_self,
        }
    }

    /// Returns whether there is a grant, or a part of one was typed.
    pub(super) fn is_begun(&self) -> bool {
        *self != Self::default()
    }

    /// Parses the grant; the outer `None`: it is not valid.
    #[expect(clippy::option_option, reason = "a form that is not valid, and one without a grant")]
    pub(super) fn parse(&self, problems: &mut Problems) -> Option<Option<Grant>> {
        if !self.is_set {
            if self.is_begun() {
                // Otherwise a token that was meant to be limited would not be.
                problems.add("grant", "Tick that it issues only what stands below, or empty these fields.");
                return None;
            }
            return Some(None);
        }
        let list = |text: &str| text.split_whitespace().map(Scope::parse).collect::<Result<_, _>>();
        let scopes =
            problems.take("grant_scopes", list(&self.scopes).and_then(Scopes::new), "This list of scopes");
        let ids = problems.take("grant_users", lines(&self.users, UserId::parse), "One of the users");
        let prefixes = problems.take(
            "grant_prefixes",
            lines(&self.prefixes, UserPrefix::parse),
            "One of the beginnings",
        );
        let longest = if self.lifetime.is_empty() {
            Some(None)
        } else {
            let parsed = duration(&self.lifetime, Duration::SECOND, MAX_LIFETIME).map(Some);
            problems.take("grant_lifetime", parsed, "The longest lifetime")
        };
        let list = |text: &str| text.split_whitespace().map(Network::parse).collect::<Result<_, _>>();
        let networks = problems.take(
            "grant_networks",
            list(&self.networks).and_then(Networks::new),
            "This list of networks",
        );
        let users = Users::new(ids?, prefixes?, self.all_users);
        let users = problems.take("grant_users", users, "This list of users");
        let grant = Grant {
            scopes: scopes?,
            users: users?,
            longest_lifetime: longest?,
            networks: networks?,
            may_grant_self: self.may_grant_self,
        };
        problems.take("grant", grant.check().map(|()| Some(grant)), "What it may issue")
    }

    /// Adds the grant to the equivalent commands.
    pub(super) fn said(&self, mut call: Call) -> Call {
        if !self.is_set {
            return call;
        }
        let mut message = Map::new();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines = |text: &str| typed_lines(text).map(str::to_owned).collect::<Vec<_>>();
        for (flag, field, values) in [
            ("grant-scope", "scopes", words(&self.scopes)),
            ("grant-user", "users", lines(&self.users)),
            ("grant-user-prefix", "userPrefixes", lines(&self.prefixes)),
            ("grant-cidr", "networks", words(&self.networks)),
        ] {
            call = values.iter().fold(call, |call, value| call.flag(flag, Some(value)));
            if !values.is_empty() {
                message.insert(field.to_owned(), json!(values));
            }
        }
        for (flag, field, is) in [
            ("grant-all-users", "allUsers", self.all_users),
            ("grant-self", "mayGrantSelf", self.may_grant_self),
        ] {
            if is {
                call = call.flag(flag, None);
                message.insert(field.to_owned(), true.into());
            }
        }
        if let Ok(longest) = duration(&self.lifetime, Duration::SECOND, MAX_LIFETIME) {
            call = call.flag("grant-lifetime", Some(&self.lifetime));
            message.insert("longestLifetime".to_owned(), format!("{}s", longest.whole_seconds()).into());
        }
        call.set("grant", Value::Object(message))
    }

    /// Returns the whole grant as one text, by which forms tell whether it has changed.
    pub(super) fn whole(&self) -> String {
        facts(self).join("; ")
    }
}

/// Returns what a grant says, for people; empty: there is none.
pub(super) fn shown(grant: Option<&Grant>) -> Vec<String> {
    facts(&GrantForm::of(grant)).into_iter().map(|fact| visible(&fact)).collect()
}

fn facts(form: &GrantForm) -> Vec<String> {
    if !form.is_set {
        return Vec::new();
    }
    let joined = |text: &str| typed_lines(text).collect::<Vec<_>>().join(", ");
    let or = |text: String, own: &str| if text.is_empty() { own.to_owned() } else { text };
    let prefixes = typed_lines(&form.prefixes).map(|prefix| format!("{prefix}…"));
    let users = typed_lines(&form.users).map(str::to_owned).chain(prefixes).collect::<Vec<_>>().join(", ");
    let users = if form.all_users { "all".to_owned() } else { or(users, "its own") };
    let lifetime = or(form.lifetime.clone(), "until its own expiration");
    let scopes = form.scopes.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut facts = vec![
        format!("Scopes: {}", or(scopes, "its own")),
        format!("Users: {users}"),
        format!("Longest lifetime: {lifetime}"),
        format!("Networks: {}", or(joined(&form.networks), "its own")),
    ];
    if form.may_grant_self {
        facts.push("tokend:self".to_owned());
    }
    facts
}

fn typed_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn lines<T>(text: &str, parse: fn(&str) -> Result<T, FieldError>) -> Result<Vec<T>, FieldError> {
    typed_lines(text).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> GrantForm {
        GrantForm::posted(&Fields::read(text.as_bytes()))
    }

    #[test]
    fn a_form_has_what_the_token_has() {
        let text = "grant=1&grant_scopes=repo:*+a&grant_users=ada+l%0d%0abob&grant_prefixes=team-&grant_lifetime=90d\
                    &grant_networks=10.0.0.0/8&grant_self=1";
        let form = read(text);
        let grant = form.parse(&mut Problems::default()).unwrap().unwrap();
        assert_eq!(grant.users.ids().collect::<Vec<_>>(), ["ada l", "bob"]);
        assert_eq!((grant.longest_lifetime, grant.may_grant_self), (Some(Duration::days(90)), true));
        assert_eq!(GrantForm::of(Some(&grant)), form);
        let lines = form.said(Call::new(&["token", "create"], "CreateToken")).lines();
        let flags = "--grant-scope 'repo:*' --grant-scope a --grant-user 'ada l' --grant-user bob \
                     --grant-user-prefix team- --grant-cidr 10.0.0.0/8 --grant-self --grant-lifetime 90d";
        assert_eq!(lines.tokend, format!("tokend token create {flags}"));
        assert!(lines.grpcurl.contains(r#""longestLifetime":"7776000s""#), "{}", lines.grpcurl);

        // A grant that sets nothing limits all the same.
        assert_eq!(read("grant=1").parse(&mut Problems::default()), Some(Some(Grant::default())));
        assert_eq!(read("").parse(&mut Problems::default()), Some(None));
        assert_ne!(read("grant=1").whole(), read("").whole());
    }

    #[test]
    fn what_is_not_valid_is_named_and_a_limit_that_is_not_ticked_is_refused() {
        for (text, field) in [
            ("grant_users=ada", "grant"),
            ("grant_self=1", "grant"),
            ("grant=1&grant_scopes=tokend:write", "grant"),
            ("grant=1&grant_scopes=UPPER", "grant_scopes"),
            ("grant=1&grant_all=1&grant_users=ada", "grant_users"),
            ("grant=1&grant_lifetime=soon", "grant_lifetime"),
            ("grant=1&grant_networks=10.0.0.1/8", "grant_networks"),
        ] {
            let mut problems = Problems::default();
            assert_eq!(read(text).parse(&mut problems), None, "{text}");
            assert!(problems.of(field).is_some(), "{text}: {problems:?}");
        }
    }
}

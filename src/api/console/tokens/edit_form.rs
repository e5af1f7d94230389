//! The form for a change of a token: as it was typed, and what it changes. Pure functions, used by the page of the
//! form and its template.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::commands::{Call, Lines};
use super::ending::{Choice, Ending};
use super::new_form::{labels, networks, scopes};
use crate::api::console::form::{Fields, Problems};
use crate::domain::root::LastRoot;
use crate::domain::{Scope, Token, TokenName};
use crate::tokens::update::TokenChange;

/// The form as it was typed.
#[derive(Debug, Default, Clone)]
pub(super) struct EditForm {
    pub(super) name: String,
    pub(super) scopes: String,
    pub(super) labels: String,
    pub(super) networks: String,
    /// What the token was when the form was made.
    pub(super) version: String,
}

impl EditForm {
    /// Returns the form with what the token has.
    pub(super) fn of(token: &Token) -> Self {
        let form = Self::parts(token);
        Self { version: form.hash(token), ..form }
    }

    fn parts(token: &Token) -> Self {
        let lines = |texts: Vec<String>| texts.join("\n");
        Self {
            name: token.name.as_str().to_owned(),
            scopes: token.scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" "),
            labels: lines(token.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            networks: lines(token.allowed_cidrs.iter().map(ToString::to_string).collect()),
            version: String::new(),
        }
    }

    pub(super) fn posted(fields: &Fields<'_>) -> Self {
        Self {
            name: fields.typed("name"),
            scopes: fields.get("scopes").to_owned(),
            labels: fields.get("labels").to_owned(),
            networks: fields.get("networks").to_owned(),
            version: fields.typed("version"),
        }
    }

    /// Parses the form. Only what differs from the token is changed: what stays may be older than the policy.
    ///
    /// # Errors
    /// Every field that is not valid; or that nothing differs.
    pub(super) fn change(&self, token: &Token, ending: &Ending) -> Result<TokenChange, Problems> {
        let mut problems = Problems::default();
        let name = problems.take("name", TokenName::parse(&self.name), "The name");
        let words: Vec<&str> = self.scopes.split_whitespace().collect();
        let scopes = scopes(&words, &mut problems);
        let labels = labels(&self.labels).map_err(|problem| problems.add("labels", problem)).ok();
        let allowed_cidrs =
            networks(&self.networks).map_err(|problem| problems.add("networks", problem)).ok();
        let expiration = ending.parse(&mut problems).and_then(Choice::expiration);
        if !problems.is_empty() {
            return Err(problems);
        }
        let change = TokenChange {
            name: name.filter(|name| *name != token.name),
            labels: labels.filter(|labels| *labels != token.labels),
            scopes: scopes.filter(|scopes| *scopes != token.scopes),
            expiration,
            allowed_cidrs: allowed_cidrs.filter(|networks| *networks != token.allowed_cidrs),
            last_root: LastRoot::Refuse,
        };
        let TokenChange { name, labels, scopes, expiration, allowed_cidrs, .. } = &change;
        if name.is_none()
            && labels.is_none()
            && scopes.is_none()
            && expiration.is_none()
            && allowed_cidrs.is_none()
        {
            return Err(Problems::one("name", "Nothing differs from what is stored."));
        }
        Ok(change)
    }

    /// Returns the commands equivalent to the form, with the fields that differ from the token; with its name, if none does.
    pub(super) fn lines(&self, token: &Token, ending: &Ending) -> Lines {
        let stored = Self::parts(token);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut call = Call::new(&["token", "update"], "UpdateToken");
        let mut paths = Vec::new();
        let differs = |one: &str, other: &str| words(one) != words(other);
        for (now, before, flag, none, field) in [
            (&self.scopes, &stored.scopes, "scope", "no-scopes", "scopes"),
            (&self.networks, &stored.networks, "cidr", "no-cidrs", "allowedCidrs"),
        ] {
            if differs(now, before) {
                let texts = words(now);
                call = call.texts(flag, field, &texts);
                call = if texts.is_empty() { call.flag(none, None) } else { call };
                paths.push(field);
            }
        }
        if differs(&self.labels, &stored.labels) {
            let pairs = labels(&self.labels).unwrap_or_default();
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            call = call.labels(&pairs);
            call = if pairs.is_empty() { call.flag("no-labels", None) } else { call };
            paths.push("labels");
        }
        if ending.parse(&mut Problems::default()).and_then(Choice::expiration).is_some() {
            call = ending.said(call, "");
            paths.push("expiration");
        }
        if self.name != stored.name || paths.is_empty() {
            call = call.text("name", "name", &self.name);
            paths.push("name");
        }
        call.set("updateMask", paths.join(",").into()).about("tokenId", &token.id.to_string()).lines()
    }

    /// Returns whether the token is still what it was when the form was made: otherwise the form would undo somebody
    /// else's change.
    pub(super) fn is_current(&self, token: &Token) -> bool {
        self.version == Self::of(token).version
    }

    /// Returns what identifies the part of a token that can be changed.
    fn hash(&self, token: &Token) -> String {
        let Self { name, scopes, labels, networks, .. } = self;
        let end = token.expire_time.map(OffsetDateTime::unix_timestamp_nanos);
        let hash = Sha256::digest(format!("{name:?}{scopes:?}{labels:?}{networks:?}{end:?}"));
        hash.iter().take(8).fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

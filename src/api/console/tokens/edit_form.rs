//! The form for a change of a token: as it was typed, and what it changes. Pure functions, used by the page of the
//! form and its template.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::expiration::{ChosenExpiration, ExpirationChoice, KEEP};
use super::grant_form::GrantForm;
use super::new_form::{labels, networks, scopes};
use crate::api::console::commands::{Call, Lines};
use crate::api::console::form::{Fields, Problems};
use crate::api::console::pages::shortened;
use crate::domain::root::LastRoot;
use crate::domain::{Scope, Token, TokenName};
use crate::tokens::update::TokenChange;

/// How much of a value is shown, in characters.
const MAX_VALUE_CHARACTERS: usize = 100;

/// The place of the grant among the marks of a version.
const GRANT_INDEX: usize = 4;

/// The form as it was typed.
#[derive(Debug, Default, Clone)]
pub(super) struct EditForm {
    pub(super) name: String,
    pub(super) scopes: String,
    pub(super) labels: String,
    pub(super) networks: String,
    pub(super) grant: GrantForm,
    /// What the token was when the form was made: a mark of each part that can be changed.
    pub(super) version: String,
}

impl EditForm {
    /// Returns the form with what the token has.
    pub(super) fn of(token: &Token) -> Self {
        let form = Self::parts(token);
        Self { version: form.marks(token).join("-"), ..form }
    }

    fn parts(token: &Token) -> Self {
        let lines = |texts: Vec<String>| texts.join("\n");
        Self {
            name: token.name.as_str().to_owned(),
            scopes: token.scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" "),
            labels: lines(token.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            networks: lines(token.allowed_cidrs.iter().map(ToString::to_string).collect()),
            grant: GrantForm::of(token.grant.as_ref()),
            version: String::new(),
        }
    }

    pub(super) fn posted(fields: &Fields<'_>) -> Self {
        Self {
            name: fields.typed("name"),
            scopes: fields.get("scopes").to_owned(),
            labels: fields.get("labels").to_owned(),
            networks: fields.get("networks").to_owned(),
            grant: GrantForm::posted(fields),
            version: fields.typed("version"),
        }
    }

    /// Parses the form. Only what differs from the token is changed: what stays may be older than the policy.
    ///
    /// # Errors
    /// Every field that is not valid; or that nothing differs.
    pub(super) fn change(
        &self,
        token: &Token,
        expiration_choice: &ExpirationChoice,
    ) -> Result<TokenChange, Problems> {
        let mut problems = Problems::default();
        let name = problems.take("name", TokenName::parse(&self.name), "The name");
        let words: Vec<&str> = self.scopes.split_whitespace().collect();
        let scopes = scopes(&words, &mut problems);
        let labels = labels(&self.labels).map_err(|problem| problems.add("labels", problem)).ok();
        let allowed_cidrs =
            networks(&self.networks).map_err(|problem| problems.add("networks", problem)).ok();
        let grant = self.grant.parse(&mut problems);
        let expiration = expiration_choice.parse(&mut problems).and_then(ChosenExpiration::expiration);
        if !problems.is_empty() {
            return Err(problems);
        }
        let change = TokenChange {
            name: name.filter(|name| *name != token.name),
            labels: labels.filter(|labels| *labels != token.labels),
            scopes: scopes.filter(|scopes| *scopes != token.scopes),
            expiration,
            allowed_cidrs: allowed_cidrs.filter(|networks| *networks != token.allowed_cidrs),
            grant: grant.filter(|grant| *grant != token.grant),
            plan: None,
            last_root: LastRoot::Refuse,
        };
        let TokenChange { name, labels, scopes, expiration, allowed_cidrs, grant, .. } = &change;
        if name.is_none()
            && labels.is_none()
            && scopes.is_none()
            && expiration.is_none()
            && allowed_cidrs.is_none()
            && grant.is_none()
        {
            return Err(Problems::one("name", "Nothing differs from what is stored."));
        }
        Ok(change)
    }

    /// Returns the commands equivalent to the form, with the fields that differ from the token; with its name, if none does.
    pub(super) fn lines(&self, token: &Token, expiration_choice: &ExpirationChoice) -> Lines {
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
        if self.grant.whole() != stored.grant.whole() {
            call = if self.grant.is_set { self.grant.said(call) } else { call.flag("no-grant", None) };
            paths.push("grant");
        }
        if expiration_choice.parse(&mut Problems::default()).and_then(ChosenExpiration::expiration).is_some()
        {
            call = expiration_choice.said(call, "");
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

    /// Returns the form for the token as it is now: with what the person changed, and for the rest with what the token
    /// has. Records the fields that somebody else has changed, too.
    pub(super) fn merged(
        self,
        token: &Token,
        expiration_choice: &ExpirationChoice,
        problems: &mut Problems,
    ) -> Self {
        let stored = Self::of(token);
        let (typed_marks, stored_marks) = (self.marks(token), stored.marks(token));
        let version = self.version;
        let before: Vec<&str> = version.split('-').collect();
        let mut parts = [
            ("name", self.name, &stored.name),
            ("scopes", self.scopes, &stored.scopes),
            ("labels", self.labels, &stored.labels),
            ("networks", self.networks, &stored.networks),
        ];
        let marks = typed_marks.iter().zip(&stored_marks).enumerate();
        for ((field, typed, has), (place, (mine, theirs))) in parts.iter_mut().zip(marks) {
            let before = before.get(place).copied().unwrap_or_default();
            if mine == before {
                has.clone_into(typed);
            } else if theirs != before && theirs != mine {
                problems.add(field, format!("Somebody else changed this. Now it is: {}", shown(has)));
            }
        }
        let (mine, theirs) = (self.grant.whole(), stored.grant.whole());
        let before = before.get(GRANT_INDEX).copied().unwrap_or_default();
        let grant = if mark(&mine) == before { stored.grant.clone() } else { self.grant };
        if mark(&mine) != before && mark(&theirs) != before && mine != theirs {
            problems.add("grant", format!("Somebody else changed this. Now it is: {}", shown(&theirs)));
        }
        if expiration_choice.choice != KEEP
            && stored_marks.last().map(String::as_str) != version.rsplit('-').next()
        {
            problems.add(expiration_choice.field(), "Somebody else changed the expiration.");
        }
        let [(_, name, _), (_, scopes, _), (_, labels, _), (_, networks, _)] = parts;
        Self { name, scopes, labels, networks, grant, version: stored.version }
    }

    /// Returns what identifies each part of a token that can be changed; the last is its expiration, which the form has
    /// elsewhere.
    fn marks(&self, token: &Token) -> [String; 6] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let end = token.expire_time.map(OffsetDateTime::unix_timestamp_nanos);
        let parts = [self.name.clone(), words(&self.scopes), words(&self.labels), words(&self.networks)];
        let [name, scopes, labels, networks] = parts.map(|part| mark(&part));
        [name, scopes, labels, networks, mark(&self.grant.whole()), mark(&format!("{end:?}"))]
    }
}

fn mark(text: &str) -> String {
    Sha256::digest(text).iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns the value of a field for people.
fn shown(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { "nothing".to_owned() } else { shortened(&text, MAX_VALUE_CHARACTERS) }
}

#[cfg(test)]
mod tests {
    use tokend_core::fixtures::token;

    use super::*;
    use crate::domain::Labels;

    #[test]
    fn what_somebody_else_changed_is_kept_and_so_is_what_was_typed() {
        let before = token(&["a", "b:*"]);
        let form = EditForm { name: "mine".to_owned(), scopes: "a  b:*".to_owned(), ..EditForm::of(&before) };
        let labels = Labels::parse([("team".to_owned(), "theirs".to_owned())]).unwrap();
        let after = Token { labels, ..before.clone() };
        assert!(form.is_current(&before) && !form.is_current(&after));

        let mut problems = Problems::default();
        let merged = form.clone().merged(&after, &ExpirationChoice::kept(), &mut problems);
        assert_eq!((&*merged.name, &*merged.scopes, &*merged.labels), ("mine", "a b:*", "team=theirs"));
        assert!(problems.is_empty() && merged.is_current(&after));

        // Both changed the same: the person decides.
        let theirs = Token { name: TokenName::parse("theirs").unwrap(), expire_time: None, ..after };
        let never = ExpirationChoice { choice: "never".to_owned(), ..ExpirationChoice::default() };
        let before = Token { expire_time: Some(before.create_time), ..before };
        let form = EditForm { name: "mine".to_owned(), ..EditForm::of(&before) };
        let merged = form.merged(&theirs, &never, &mut problems);
        assert_eq!(merged.name, "mine");
        assert_eq!(problems.of("name"), Some("Somebody else changed this. Now it is: theirs"));
        assert!(problems.of("expiration").is_some() && problems.of("labels").is_none());
    }
}

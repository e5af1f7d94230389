//! A token as pages show it. Called by the pages of tokens.

use time::{Duration, OffsetDateTime};

use super::grant_form;
use crate::api::console::moments::{Moment, exact, relative};
use crate::api::console::pages::visible;
use crate::domain::token::LastRefusal;
use crate::domain::{OwnerKind, Token, TokenState};
use crate::secret::{Prefix, TokenId};

/// How long before its expiration a token is said to expire soon, but not before the last quarter of its life.
const EXPIRES_SOON: Duration = Duration::days(7);

/// How many characters of an id are shown as the beginning of its secret.
const HINT_CHARACTERS: usize = 8;

/// How many scopes of a token are listed.
const MAX_SCOPES_SHOWN: usize = 3;

/// A token as it is shown.
pub(super) struct TokenView {
    pub(super) id: String,
    /// How its secret begins.
    pub(super) hint: String,
    pub(super) name: String,
    pub(super) user: String,
    pub(super) organization: String,
    pub(super) scopes: Vec<String>,
    pub(super) labels: Vec<(String, String)>,
    pub(super) networks: Vec<String>,
    /// Its state in a word, and the class that colours it.
    pub(super) state: (&'static str, &'static str),
    /// Why it is in that state, or until when.
    pub(super) why: String,
    pub(super) is_revoked: bool,
    pub(super) created: Moment,
    pub(super) created_by: String,
    pub(super) last_used: Option<Moment>,
    /// When and why it was refused last.
    pub(super) last_refused: Option<(Moment, String)>,
    pub(super) expires: Option<Moment>,
    pub(super) revoked: Option<Moment>,
    pub(super) reason: String,
    pub(super) disabled: Option<Moment>,
    /// Since when its user is disabled.
    pub(super) user_disabled: Option<Moment>,
    pub(super) is_service: bool,
    /// What it may issue; empty: all that its scopes allow.
    pub(super) grant: Vec<String>,
}

impl TokenView {
    pub(super) fn new(token: &Token, now: OffsetDateTime, prefix: &Prefix) -> Self {
        let moment = |time: Option<OffsetDateTime>| time.map(|time| Moment::new(time, now));
        let id = token.id.to_string();
        let soon = token.expire_time.is_some_and(|end| {
            let lifetime = end.unix_timestamp().saturating_sub(token.create_time.unix_timestamp());
            end <= now.saturating_add(EXPIRES_SOON.min(Duration::seconds(lifetime / 4)))
        });
        let superseded = token.superseded_by.is_some();
        let state = match token.state(now) {
            TokenState::Active if superseded => ("Superseded", "warn"),
            TokenState::Active if soon => ("Expires soon", "warn"),
            TokenState::Active => ("Active", "good"),
            TokenState::Disabled => ("Disabled", "warn"),
            TokenState::Expired => ("Expired", "off"),
            TokenState::Revoked => ("Revoked", "bad"),
            _ => ("Unknown", "off"),
        };
        Self {
            hint: format!("{}_{}…", prefix.as_str(), id.get(..HINT_CHARACTERS).unwrap_or(&id)),
            id,
            name: visible(token.name.as_str()),
            user: visible(token.user_id.as_str()),
            organization: visible(token.organization_id.as_str()),
            scopes: token.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            labels: token.labels.iter().map(|(key, value)| (visible(key), visible(value))).collect(),
            networks: token.allowed_cidrs.iter().map(ToString::to_string).collect(),
            state,
            why: why(token, now),
            is_revoked: token.revoke_time.is_some(),
            created: Moment::new(token.create_time, now),
            created_by: visible(&token.created_by.to_string()),
            last_used: moment(token.last_use_time),
            last_refused: token
                .last_refusal
                .as_deref()
                .map(|refusal| (Moment::new(refusal.time, now), why_refused(refusal))),
            expires: moment(token.expire_time),
            revoked: moment(token.revoke_time),
            reason: token.revoke_reason.as_ref().map_or_else(String::new, |reason| visible(reason.as_str())),
            disabled: moment(token.disable_time),
            user_disabled: moment(token.user_disable_time),
            is_service: token.owner_kind == OwnerKind::Service,
            grant: grant_form::shown(token.grant.as_ref()),
        }
    }

    /// Returns the beginning of who created it, if that is the id of a token.
    pub(super) fn creator(&self) -> String {
        match TokenId::parse(&self.created_by) {
            Ok(_) => format!("{}…", self.created_by.get(..HINT_CHARACTERS).unwrap_or_default()),
            Err(_) => self.created_by.clone(),
        }
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.disabled.is_some()
    }

    pub(super) fn first_scopes(&self) -> &[String] {
        self.scopes.get(..MAX_SCOPES_SHOWN).unwrap_or(&self.scopes)
    }

    /// Returns how many scopes are not among the first.
    pub(super) fn more_scopes(&self) -> usize {
        self.scopes.len().saturating_sub(MAX_SCOPES_SHOWN)
    }
}

/// Returns why a token was refused, and from where, in a few words.
pub(in crate::api::console) fn why_refused(refusal: &LastRefusal) -> String {
    let verdict = match refusal.verdict {
        4 => "revoked",
        5 => "expired",
        6 => "disabled",
        7 => "scope missing",
        8 => "address not allowed",
        9 => "rate limited",
        10 => "credits used up",
        _ => "refused",
    };
    let scopes: String =
        refusal.missing_scopes.iter().flat_map(|scope| [" ".to_owned(), visible(scope)]).collect();
    let from = refusal.client_ip.map_or_else(String::new, |address| format!(", from {address}"));
    format!("{verdict}{scopes}{from}")
}

/// Returns why a token is in its state, or until when, in a few words.
fn why(token: &Token, now: OffsetDateTime) -> String {
    let far = |time: OffsetDateTime| relative(time, now);
    let reason = token.revoke_reason.as_ref().map(|reason| visible(reason.as_str()));
    match token.state(now) {
        TokenState::Revoked => match (reason.filter(|text| !text.is_empty()), token.revoke_time) {
            (Some(reason), _) => reason,
            (None, Some(time)) => far(time),
            (None, None) => String::new(),
        },
        TokenState::Expired if token.superseded_by.is_some() => "superseded".to_owned(),
        TokenState::Expired => token.expire_time.map_or_else(String::new, far),
        TokenState::Disabled if token.user_disable_time.is_some() => "its user is disabled".to_owned(),
        TokenState::Disabled => token.disable_time.map_or_else(String::new, far),
        TokenState::Active if token.superseded_by.is_some() => {
            token.expire_time.map_or_else(String::new, |end| format!("until {}", exact(end)))
        }
        _ => String::new(),
    }
}

//! The token of a login: what a program of a person gets when the person allows it in the console. It is narrower than
//! the token of the person's session in everything. Called by the console, which shows it, and by the action that
//! creates it; `access` checks it.

use time::{Duration, OffsetDateTime};

use super::fields::{FieldError, TokenName};
use super::grant::Grant;
use super::principal::Principal;
use super::scope::{ReservedScope, Scopes};
use super::token::Token;
use crate::secret::TokenId;

/// How long a login may last: at least, at most, and where the program does not say.
pub const SHORTEST: Duration = Duration::MINUTE;
/// See [`SHORTEST`].
pub const LONGEST: Duration = Duration::DAY;
/// See [`SHORTEST`].
pub const DEFAULT_LIFETIME: Duration = Duration::hours(8);

/// The longest lifetime of what a login issues, where the session's own token never expires.
const MAX_GIVEN: Duration = Duration::days(365);

/// The longest name of a computer, in characters.
const MAX_HOST_CHARACTERS: usize = 60;

/// What a program calls its computer. Not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(TokenName);

/// What a program asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// Where it runs.
    pub host: Host,
    /// How long the login lasts.
    pub lifetime: Duration,
    /// The scopes of tokens that it may issue; empty: all that the session may issue.
    pub scopes: Scopes,
}

impl Host {
    /// Accepts 1 to 60 visible characters.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if text.chars().count() > MAX_HOST_CHARACTERS {
            return Err(FieldError::TooLong { limit: MAX_HOST_CHARACTERS, unit: "characters" });
        }
        TokenName::parse(text).map(Self)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl LoginRequest {
    /// Checks how long it lasts.
    ///
    /// # Errors
    /// It is shorter than a minute or longer than a day.
    pub fn check_lifetime(lifetime: Duration) -> Result<Duration, FieldError> {
        if (SHORTEST..=LONGEST).contains(&lifetime) {
            Ok(lifetime)
        } else {
            Err(FieldError::Rule("is not between a minute and a day"))
        }
    }

    /// Returns the token that somebody who is signed in with `own` lets the program have at `now`: it manages the
    /// tokens of its own user, and issues what `own` issues at most.
    ///
    /// # Errors
    /// The name or the grant is too long.
    pub fn token(&self, own: &Token, id: TokenId, now: OffsetDateTime) -> Result<Token, FieldError> {
        let end = now.saturating_add(self.lifetime);
        let end = own.expire_time.map_or(end, |own| own.min(end));
        let grant = self.grant(own, end);
        grant.check()?;
        let name = TokenName::parse(&format!("tokend login on {}", self.host.as_str()))?;
        let owner = (own.organization_id.clone(), own.user_id.clone());
        Ok(Token {
            scopes: Scopes::new(vec![ReservedScope::Own.into()])?,
            allowed_cidrs: own.allowed_cidrs.clone(),
            expire_time: Some(end),
            grant: Some(grant),
            owner_kind: own.owner_kind,
            ..Token::new(id, owner, name, (now, Principal::Token(own.id)))
        })
    }

    fn grant(&self, own: &Token, end: OffsetDateTime) -> Grant {
        let above = own.grant.as_ref();
        let offered = above.map(|grant| &grant.scopes).filter(|scopes| !scopes.is_empty());
        let offered = offered.unwrap_or(&own.scopes).ordinary();
        let given = above.and_then(|grant| grant.longest_lifetime);
        let longest_lifetime = given.unwrap_or_else(|| match own.expire_time {
            // What it issues last expires with `own`.
            Some(own_end) => {
                let left = own_end.unix_timestamp_nanos().saturating_sub(end.unix_timestamp_nanos());
                Duration::seconds((left / 1_000_000_000).try_into().unwrap_or(0))
            }
            None => MAX_GIVEN,
        });
        Grant {
            scopes: if self.scopes.is_empty() { offered } else { self.scopes.clone() },
            longest_lifetime: Some(longest_lifetime).filter(|longest| longest.is_positive()),
            networks: above.map(|grant| grant.networks.clone()).unwrap_or_default(),
            ..Grant::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::scope::Scope;
    use crate::fixtures::token;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn request(scopes: &[&str]) -> LoginRequest {
        let scopes = scopes.iter().map(|text| Scope::parse(text).unwrap()).collect();
        LoginRequest {
            host: Host::parse("laptop").unwrap(),
            lifetime: DEFAULT_LIFETIME,
            scopes: Scopes::new(scopes).unwrap(),
        }
    }

    fn made(request: &LoginRequest, own: &Token) -> Token {
        request.token(own, TokenId::from_bytes([9; 16]), NOW).unwrap()
    }

    #[test]
    fn a_login_manages_the_own_tokens_and_issues_what_its_session_issues() {
        let own = Token {
            expire_time: Some(NOW + Duration::DAY * 30),
            ..token(&["tokend:self", "tokend:read", "repo:*", "logs:read"])
        };
        let login = made(&request(&[]), &own);
        let text = |scopes: &Scopes| scopes.iter().map(|scope| scope.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(text(&login.scopes), ["tokend:self"]);
        assert_eq!(login.expire_time, Some(NOW + DEFAULT_LIFETIME));
        assert_eq!(login.created_by, Principal::Token(own.id));
        let grant = login.grant.unwrap();
        assert_eq!(text(&grant.scopes), ["repo:*", "logs:read"]);
        assert_eq!(grant.longest_lifetime, Some(Duration::DAY * 30 - DEFAULT_LIFETIME));
        assert!(grant.users.is_empty() && !grant.may_grant_self);
        assert_eq!(text(&made(&request(&["repo:a"]), &own).grant.unwrap().scopes), ["repo:a"]);
    }

    #[test]
    fn a_login_ends_with_its_session_s_token_and_issues_nothing_that_lasts_longer() {
        let own = Token { expire_time: Some(NOW + Duration::HOUR), ..token(&["tokend:self", "a"]) };
        let login = made(&request(&[]), &own);
        assert_eq!((login.expire_time, login.grant.unwrap().longest_lifetime), (own.expire_time, None));
    }

    #[test]
    fn a_host_is_a_short_visible_text_and_a_login_lasts_a_minute_to_a_day() {
        assert!(Host::parse(&"ü".repeat(60)).is_ok());
        for bad in [&*"x".repeat(61), "", " ", "a\nb", "a\u{202e}b"] {
            assert!(Host::parse(bad).is_err(), "{bad:?}");
        }
        for (seconds, valid) in [(59, false), (60, true), (86_400, true), (86_401, false), (-60, false)] {
            assert_eq!(LoginRequest::check_lifetime(Duration::seconds(seconds)).is_ok(), valid, "{seconds}");
        }
    }
}

//! A person's session in the console, and when it is over. Read and written by the store; judged by
//! authentication. Knows no cookies and no clock.

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::login::LoginRequest;
use super::{Portal, PortalTerms};
use crate::secret::{CodeChallenge, TokenId};

/// How long a session lasts without a request.
pub const IDLE_TIMEOUT: Duration = Duration::minutes(30);

/// How long a session lasts in all.
pub const SESSION_LIFETIME: Duration = Duration::hours(12);

/// How long the proof at its opening counts for acts with all rights.
pub const PROOF_LIFETIME: Duration = Duration::minutes(15);

/// How many sessions one token has at most; one more ends the one that was used least recently.
pub const MAX_SESSIONS_PER_TOKEN: i64 = 100;

/// How long a link can be used to sign in.
pub const LINK_LIFETIME: Duration = Duration::minutes(1);

/// How many unused links one token has at most; one more ends the oldest.
pub const MAX_LINKS: i64 = 10;

/// How long the code of a login can be exchanged.
pub const CODE_LIFETIME: Duration = Duration::minutes(1);

/// How many codes one session has at most; one more ends the oldest.
pub const MAX_CODES: i64 = 10;

/// How long a portal session lasts at most, from the call that made its link.
pub const PORTAL_LIFETIME: Duration = Duration::minutes(15);

/// A session: a person who has proven the secret of a token, or for whom a token vouches. It can never do more than
/// that token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Names it in lists; opens nothing.
    pub id: Uuid,
    /// The token whose secret was proven, or that vouches.
    pub token_id: TokenId,
    /// When it was opened.
    pub open_time: OffsetDateTime,
    /// The last request, at most a minute too early.
    pub last_use_time: OffsetDateTime,
    /// When the secret was last proven.
    pub proof_time: OffsetDateTime,
    /// The address that it was opened from; `None`: a proxy did not say it.
    pub address: Option<String>,
    /// It was opened by a link, not by the secret itself.
    pub by_link: bool,
    /// What a portal session allows; `None`: the session stands for its token.
    pub portal: Option<PortalSession>,
}

/// What a portal session, or a link to one, allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalSession {
    /// For whom it is, and what may be issued in it.
    pub terms: PortalTerms,
    /// When it is over.
    pub expire_time: OffsetDateTime,
}

/// A link that signs a person in once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The token that made it.
    pub token_id: TokenId,
    /// When it can no longer be used.
    pub expire_time: OffsetDateTime,
    /// When somebody signed in with it.
    pub consume_time: Option<OffsetDateTime>,
    /// What the portal session that it opens allows; `None`: it signs in as its token.
    pub portal: Option<PortalSession>,
}

/// The code of a login that a person allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginCode {
    /// The session in which it was allowed.
    pub session: Session,
    /// Binds it to the program that asked.
    pub challenge: CodeChallenge,
    /// What was allowed.
    pub request: LoginRequest,
    /// When it can no longer be exchanged.
    pub expire_time: OffsetDateTime,
}

impl Session {
    /// Returns whether it is over at `now`: 30 minutes after its last request, 12 hours after it was opened, or at the
    /// end of a portal session.
    #[must_use]
    pub fn is_over(&self, now: OffsetDateTime) -> bool {
        self.portal.as_ref().is_some_and(|portal| now >= portal.expire_time)
            || now >= self.last_use_time.saturating_add(IDLE_TIMEOUT)
            || now >= self.open_time.saturating_add(SESSION_LIFETIME)
    }

    /// Returns it as a portal session; `None`: it stands for its token.
    #[must_use]
    pub fn as_portal(&self) -> Option<Portal> {
        let terms = self.portal.as_ref()?.terms.clone();
        Some(Portal { session_id: self.id, token_id: self.token_id, terms })
    }

    /// Returns whether its last use has to be recorded: the last record is a minute old.
    #[must_use]
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        now >= self.last_use_time.saturating_add(Duration::MINUTE)
    }

    /// Returns whether the secret was proven within the last 15 minutes.
    #[must_use]
    pub fn is_proven(&self, now: OffsetDateTime) -> bool {
        now < self.proof_time.saturating_add(PROOF_LIFETIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{OrganizationId, Scopes, UserId};

    #[test]
    fn a_session_is_over_when_it_is_idle_or_old_and_not_before() {
        let open = time::macros::datetime!(2026-11-30 08:00 UTC);
        let mut session = Session {
            id: Uuid::nil(),
            token_id: TokenId::from_bytes([0; 16]),
            open_time: open,
            last_use_time: open,
            proof_time: open,
            address: None,
            by_link: false,
            portal: None,
        };
        let moment = Duration::MICROSECOND;
        assert!(!session.is_over(open + IDLE_TIMEOUT - moment) && session.is_over(open + IDLE_TIMEOUT));
        assert!(
            session.is_proven(open + PROOF_LIFETIME - moment) && !session.is_proven(open + PROOF_LIFETIME)
        );
        assert!(!session.is_due(open + Duration::SECOND) && session.is_due(open + Duration::MINUTE));
        session.last_use_time = open + SESSION_LIFETIME - Duration::MINUTE;
        assert!(
            !session.is_over(open + SESSION_LIFETIME - moment) && session.is_over(open + SESSION_LIFETIME)
        );
    }

    #[test]
    fn a_portal_session_is_over_at_its_end_however_often_it_is_used() {
        let open = time::macros::datetime!(2026-11-30 08:00 UTC);
        let terms = PortalTerms {
            organization_id: OrganizationId::parse("acme").unwrap(),
            user_id: UserId::parse("ada").unwrap(),
            scopes: Scopes::default(),
        };
        let session = Session {
            id: Uuid::nil(),
            token_id: TokenId::from_bytes([0; 16]),
            open_time: open,
            last_use_time: open + PORTAL_LIFETIME,
            proof_time: open,
            address: None,
            by_link: true,
            portal: Some(PortalSession { terms, expire_time: open + PORTAL_LIFETIME }),
        };
        assert!(
            !session.is_over(open + PORTAL_LIFETIME - Duration::MICROSECOND)
                && session.is_over(open + PORTAL_LIFETIME)
        );
    }
}

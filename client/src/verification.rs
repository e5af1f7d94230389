//! A verifier's request and answer, independent of its mode.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use time::OffsetDateTime;
use tokend_core::domain::{Scope, Scopes, Token, Verdict};

use crate::error::Error;
use crate::limits::{LimitStatus, span};
use crate::proto;
use crate::token::{scopes, texts, time, token, verdict};

/// A request: may the client that presents this secret do that?
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct VerifyRequest<'a> {
    /// The presented text, unchanged.
    pub secret: &'a str,
    /// The scopes that it must cover, all of them.
    pub required_scopes: &'a Scopes,
    /// The client's address; if it is not known, no token with allowed networks is admitted.
    pub client_ip: Option<IpAddr>,
    /// How much of each limit of the token's plan is spent if it is valid; 0 only asks.
    pub cost: u32,
    /// The only limit to judge and spend; `None`: all of the token's plan.
    pub limit: Option<&'a str>,
}

/// No scope is required.
static NONE: LazyLock<Scopes> = LazyLock::new(Scopes::default);

impl<'a> VerifyRequest<'a> {
    /// Asks about a presented text, unchanged: whether it is valid at all, from an unknown address.
    #[must_use]
    pub fn new(secret: &'a str) -> Self {
        Self { secret, required_scopes: &NONE, client_ip: None, cost: 1, limit: None }
    }

    /// Requires all of these scopes.
    #[must_use]
    pub fn required_scopes(self, required_scopes: &'a Scopes) -> Self {
        Self { required_scopes, ..self }
    }

    /// Sets the client's address.
    #[must_use]
    pub fn client_ip(self, address: impl Into<Option<IpAddr>>) -> Self {
        Self { client_ip: address.into(), ..self }
    }

    /// Sets how much is spent of each limit of the token's plan; 0 only asks. With another cost, a request whose answer was
    /// lost is not repeated, because it may have spent.
    #[must_use]
    pub fn cost(self, cost: u32) -> Self {
        Self { cost, ..self }
    }

    /// Judges and spends only the limit with this name. A valid token without it is
    /// [`ErrorReason::LimitNotFound`](crate::ErrorReason::LimitNotFound).
    #[must_use]
    pub fn limit(self, limit: &'a str) -> Self {
        Self { limit: Some(limit), ..self }
    }
}

impl std::fmt::Debug for VerifyRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { secret: _, required_scopes, client_ip, cost, limit } = self;
        f.debug_struct("VerifyRequest")
            .field("secret", &"[redacted]")
            .field("required_scopes", required_scopes)
            .field("client_ip", client_ip)
            .field("cost", cost)
            .field("limit", limit)
            .finish()
    }
}

/// How fresh a response of the server has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// At most as stale as the server is configured to allow.
    #[default]
    Bounded,
    /// Read from the database after the request arrived.
    Full,
}

/// A token whose secret was presented. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken(Arc<Token>);

impl VerifiedToken {
    pub(crate) fn new(token: Token) -> Self {
        Self(Arc::new(token))
    }
}

impl Deref for VerifiedToken {
    type Target = Token;

    fn deref(&self) -> &Token {
        &self.0
    }
}

/// A verifier's answer about a secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verification {
    /// The verdict; only [`Verdict::Valid`] admits.
    pub verdict: Verdict,
    /// The token that the secret proved: with every verdict but `Malformed` and `NotFound`.
    pub token: Option<VerifiedToken>,
    /// The required scopes that it lacks.
    pub missing_scopes: Vec<Scope>,
    /// The answer includes every change that was committed before this time, by the database's clock.
    pub as_of: Option<OffsetDateTime>,
    /// The limits of the token's plan that were judged; empty for a token without a plan.
    pub limits: Vec<LimitStatus>,
    /// When the same request may be valid, with a verdict about limits; `None`: waiting does not help.
    pub retry_after: Option<Duration>,
}

impl VerifyRequest<'_> {
    pub(crate) fn message(&self, consistency: Consistency) -> proto::VerifyRequest {
        let consistency = match consistency {
            Consistency::Bounded => proto::Consistency::Bounded,
            Consistency::Full => proto::Consistency::Full,
        };
        proto::VerifyRequest {
            secret: self.secret.to_owned(),
            required_scopes: texts(self.required_scopes),
            client_ip: self.client_ip.map(|address| address.to_string()).unwrap_or_default(),
            consistency: consistency.into(),
            cost: Some(self.cost),
            limit: self.limit.unwrap_or_default().to_owned(),
        }
    }
}

impl TryFrom<proto::VerifyResponse> for Verification {
    type Error = Error;

    fn try_from(message: proto::VerifyResponse) -> Result<Self, Error> {
        let verdict = verdict(message.verdict)?;
        let token = message.token.map(token).transpose()?.map(VerifiedToken::new);
        if verdict == Verdict::Valid && token.is_none() {
            return Err(Error::invalid_response("token"));
        }
        let missing =
            scopes(&message.missing_scopes).map_err(|_| Error::invalid_response("missing_scopes"))?;
        Ok(Self {
            verdict,
            token,
            missing_scopes: missing.iter().cloned().collect(),
            as_of: time("as_of_time", message.as_of_time)?,
            limits: message.limits.into_iter().map(LimitStatus::try_from).collect::<Result<_, _>>()?,
            retry_after: message.retry_after.map(|time| span("retry_after", time)).transpose()?,
        })
    }
}

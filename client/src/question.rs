//! What is asked of a verifier, and what it answers, whichever way it finds out.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use time::OffsetDateTime;
use tokend_core::domain::{Scope, Scopes, Token, Verdict};

use crate::error::Error;
use crate::proto;
use crate::token::{scopes, texts, time, token, verdict};

/// What is asked: may whoever presents this do that?
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Question<'a> {
    /// The text that was presented, unchanged.
    pub secret: &'a str,
    /// What it must be allowed to do, all of it.
    pub required_scopes: &'a Scopes,
    /// Where it was presented from; where that is not known, no token is admitted that is bound to networks.
    pub client_ip: Option<IpAddr>,
}

/// Nothing is required.
static NONE: LazyLock<Scopes> = LazyLock::new(Scopes::default);

impl<'a> Question<'a> {
    /// Asks about the text that was presented, unchanged: whether it is good for anything, from a place that is not
    /// known.
    #[must_use]
    pub fn new(secret: &'a str) -> Self {
        Self { secret, required_scopes: &NONE, client_ip: None }
    }

    /// Requires these scopes, all of them.
    #[must_use]
    pub fn required_scopes(self, required_scopes: &'a Scopes) -> Self {
        Self { required_scopes, ..self }
    }

    /// Says where it was presented from.
    #[must_use]
    pub fn client_ip(self, address: impl Into<Option<IpAddr>>) -> Self {
        Self { client_ip: address.into(), ..self }
    }
}

impl std::fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { secret: _, required_scopes, client_ip } = self;
        f.debug_struct("Question")
            .field("secret", &"[redacted]")
            .field("required_scopes", required_scopes)
            .field("client_ip", client_ip)
            .finish()
    }
}

/// How fresh an answer of the server has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// As old as the server is configured to be at most.
    #[default]
    Bounded,
    /// Read from the database after the question came.
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

/// What is known of a secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Answer {
    /// What to do about it; [`Verdict::Valid`] alone admits.
    pub verdict: Verdict,
    /// The token, where the secret proved one: with every verdict but `Malformed` and `NotFound`.
    pub token: Option<VerifiedToken>,
    /// The required scopes that it lacks.
    pub missing_scopes: Vec<Scope>,
    /// The answer takes account of every change that was committed before this moment, by the database's clock.
    pub as_of: Option<OffsetDateTime>,
}

impl Question<'_> {
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
        }
    }
}

impl TryFrom<proto::VerifyResponse> for Answer {
    type Error = Error;

    fn try_from(message: proto::VerifyResponse) -> Result<Self, Error> {
        let verdict = verdict(message.verdict)?;
        let token = message.token.map(token).transpose()?.map(VerifiedToken::new);
        if verdict == Verdict::Valid && token.is_none() {
            return Err(Error::answer("token"));
        }
        let missing = scopes(&message.missing_scopes).map_err(|_| Error::answer("missing_scopes"))?;
        Ok(Self {
            verdict,
            token,
            missing_scopes: missing.iter().cloned().collect(),
            as_of: time("as_of_time", message.as_of_time)?,
        })
    }
}

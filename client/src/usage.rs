//! Usage: how often tokens were verified. The types of the call, and the call.

use time::OffsetDateTime;
use tokend_core::domain::{OrganizationId, OwnerKind, UserId, Verdict};
use tokend_core::secret::TokenId;

use crate::client::Client;
use crate::error::Error;
use crate::proto;
use crate::retry::Repeatable;
use crate::token::{owner_kind, time, timestamp};

/// How long one point of a [`Usage`] lasts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UsageStep {
    /// An hour of UTC.
    #[default]
    Hour,
    /// A day of UTC.
    Day,
}

/// Selects what is counted; the default is the last 24 hours of the caller's own organization.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageQuery {
    /// The organization; `None`: the caller's own, or `default` for a root caller.
    pub organization_id: Option<OrganizationId>,
    /// This token only, without an organization, a user or top tokens.
    pub token_id: Option<TokenId>,
    /// Tokens of this user only.
    pub user_id: Option<UserId>,
    /// What the user's id names; `None`: either.
    pub kind: Option<OwnerKind>,
    /// Begins with the step that has this time; `None`: 24 hours or 30 days before the end.
    pub start: Option<OffsetDateTime>,
    /// Ends before this time, with a whole step; `None`: with the current one.
    pub end: Option<OffsetDateTime>,
    /// By hour or by day.
    pub step: UsageStep,
    /// How many of the tokens with the most verifications are named: at most 100.
    pub top_tokens: u8,
}

/// How often tokens were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The first moment of what was asked for.
    pub start: OffsetDateTime,
    /// The first moment after it.
    pub end: OffsetDateTime,
    /// The hours or days with verifications, the oldest first.
    pub points: Vec<UsagePoint>,
    /// The tokens with the most verifications, the one with the most first.
    pub top_tokens: Vec<TokenUsage>,
}

/// The counts of one hour or day.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsagePoint {
    /// Its first moment.
    pub start: OffsetDateTime,
    /// How often each verdict was given.
    pub counts: VerdictCounts,
}

/// The counts of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenUsage {
    /// The token.
    pub token_id: TokenId,
    /// Its name; `None`: it is no longer stored.
    pub name: Option<String>,
    /// The user that it belongs to; `None`: it is no longer stored.
    pub user_id: Option<String>,
    /// What the user's id names; `None`: the token is no longer stored.
    pub kind: Option<OwnerKind>,
    /// How often each verdict was given.
    pub counts: VerdictCounts,
}

/// How often each verdict was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerdictCounts {
    counts: Vec<(Verdict, u64)>,
    newer: u64,
}

impl VerdictCounts {
    /// Returns how often this verdict was given.
    #[must_use]
    pub fn of(&self, verdict: Verdict) -> u64 {
        self.counts.iter().filter(|(of, _)| *of == verdict).map(|(_, count)| count).sum()
    }

    /// Returns the sum, with verdicts that are newer than this client.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(self.newer, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn read(counts: Vec<proto::VerdictCount>) -> Result<Self, Error> {
        let mut read = Self::default();
        for count in counts {
            let number =
                u64::try_from(count.verifications).map_err(|_| Error::invalid_response("verifications"))?;
            match crate::token::verdict(count.verdict) {
                Ok(verdict) => read.counts.push((verdict, number)),
                Err(_) => read.newer = read.newer.saturating_add(number),
            }
        }
        Ok(read)
    }
}

impl Client {
    /// Reads how often tokens were verified.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn usage(&self, query: &UsageQuery) -> Result<Usage, Error> {
        let step = match query.step {
            UsageStep::Hour => proto::UsageStep::Hour,
            UsageStep::Day => proto::UsageStep::Day,
        };
        let message = proto::GetUsageRequest {
            organization_id: query.organization_id.as_ref().map_or("", OrganizationId::as_str).to_owned(),
            token_id: query.token_id.map(|id| id.to_string()).unwrap_or_default(),
            user_id: query.user_id.as_ref().map_or("", UserId::as_str).to_owned(),
            owner_kind: query.kind.map_or(0, |kind| proto::OwnerKind::from(kind).into()),
            start_time: query.start.map(timestamp),
            end_time: query.end.map(timestamp),
            step: step.into(),
            top_tokens: query.top_tokens.into(),
        };
        let usage = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.get_usage(request).await })
            .await?;
        Ok(Usage {
            start: moment("start_time", usage.start_time)?,
            end: moment("end_time", usage.end_time)?,
            points: usage.points.into_iter().map(UsagePoint::read).collect::<Result<_, _>>()?,
            top_tokens: usage.top_tokens.into_iter().map(TokenUsage::read).collect::<Result<_, _>>()?,
        })
    }
}

impl UsagePoint {
    fn read(point: proto::UsagePoint) -> Result<Self, Error> {
        let start = moment("start_time", point.start_time)?;
        Ok(Self { start, counts: VerdictCounts::read(point.counts)? })
    }
}

impl TokenUsage {
    fn read(token: proto::TokenUsage) -> Result<Self, Error> {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let kind = match token.owner_kind {
            0 => None,
            number => Some(owner_kind(number)?),
        };
        Ok(Self {
            token_id: TokenId::parse(&token.token_id).map_err(|_| Error::invalid_response("token_id"))?,
            name: given(token.name),
            user_id: given(token.user_id),
            kind,
            counts: VerdictCounts::read(token.counts)?,
        })
    }
}

fn moment(name: &'static str, given: Option<prost_types::Timestamp>) -> Result<OffsetDateTime, Error> {
    time(name, given)?.ok_or_else(|| Error::invalid_response(name))
}

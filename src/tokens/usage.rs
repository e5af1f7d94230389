//! Says how often tokens were verified. Called by `GetUsage` and by the console. Knows no SQL.

use time::OffsetDateTime;

use super::{ActionError, Actions};
use crate::clock;
use crate::domain::usage::{Step, UsageAnswer, UsageQuery, UsageRange, UsageScope};
use crate::domain::{Caller, Extent, FieldError, OrganizationId, OwnerKind, Permission, UserId};
use crate::secret::TokenId;

/// The fields of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetUsage {
    /// The organization; `None`: see [`Caller::organization`].
    pub organization_id: Option<OrganizationId>,
    /// One token, or all.
    pub token_id: Option<TokenId>,
    /// One user, or all.
    pub user_id: Option<UserId>,
    /// What the user's id names; `None`: either.
    pub kind: Option<OwnerKind>,
    /// The first moment, and the first one after the range; `None`: see [`UsageRange::new`].
    pub between: (Option<OffsetDateTime>, Option<OffsetDateTime>),
    /// By hour or by day.
    pub step: Step,
    /// How many of the tokens with the most verifications are named.
    pub top: u32,
}

/// What was counted, and of what.
#[derive(Debug)]
pub struct Usage {
    /// What was asked for.
    pub query: UsageQuery,
    /// The counts.
    pub answer: UsageAnswer,
}

impl Actions {
    /// Returns how often tokens were verified, for a caller with `tokend:read`, or with `tokend:self` for its own user.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, a range that is too long, the database.
    pub async fn usage(&self, caller: &Caller, request: GetUsage) -> Result<Usage, ActionError> {
        let (start, end) = request.between;
        let scope = match request.token_id {
            Some(id) => UsageScope::Token(self.get_token(caller, id).await?.0.id),
            None => scope(caller, request.organization_id, request.user_id, request.kind)?,
        };
        let range = UsageRange::new(request.step, start, end, clock::now())
            .map_err(|error| ActionError::invalid("start_time", &error))?;
        let query = UsageQuery { scope, step: request.step, range, top: request.top };
        let read = self.admission.reads(caller).await?.read_usage(&query).await?;
        let answer = read.ok_or_else(|| ActionError::invalid("start_time", &too_many(request.step)))?;
        Ok(Usage { query, answer })
    }
}

/// Returns whose verifications the caller gets.
fn scope(
    caller: &Caller,
    organization: Option<OrganizationId>,
    user: Option<UserId>,
    kind: Option<OwnerKind>,
) -> Result<UsageScope, ActionError> {
    let (_, user) = caller.listed_owner(organization.clone(), user)?;
    let organization = caller.organization(organization)?;
    Ok(match (user, caller.extent(Permission::ReadOwn)?) {
        (Some(user), Extent::User(..)) => UsageScope::User(organization, user, caller.listed_kind(kind)?),
        (Some(user), _) => UsageScope::User(organization, user, kind),
        (None, _) => UsageScope::Organization(organization),
    })
}

fn too_many(step: Step) -> FieldError {
    FieldError::Rule(match step {
        Step::Hour => "begins a range with more than 1000000 counts: choose days, or a later time",
        Step::Day => "begins a range with more than 1000000 counts: choose a later time",
    })
}

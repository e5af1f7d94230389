//! Adds credits to a balance, once for each request. Called by `AddCredits`. Does not know how credits are spent.

use super::{ActionError, Actions};
use crate::domain::plan::{LimitSubject, MAX_AMOUNT};
use crate::domain::{Caller, FieldError, OrganizationId, OwnerKind, PlanName, UserId};
use crate::limits::{family_subject, organization_subject, user_subject};
use crate::secret::{RequestId, TokenId};
use crate::store::{Addition, AllowanceKey, CreditLimit, Store, Transaction};

/// What to add, and to which balance.
#[derive(Debug)]
pub struct AddCredits {
    /// `None`: the caller's own.
    pub organization_id: Option<OrganizationId>,
    /// The plan.
    pub plan: PlanName,
    /// Its limit.
    pub limit: PlanName,
    /// Whose balance.
    pub subject: CreditSubject,
    /// How many credits, at most [`MAX_AMOUNT`].
    pub amount: i64,
    /// The same for a repeat.
    pub request_id: RequestId,
}

/// Whose balance.
#[derive(Debug)]
pub enum CreditSubject {
    /// A token, with what it was rotated from and into.
    Token(TokenId),
    /// A user.
    User(OwnerKind, UserId),
    /// The organization.
    Organization,
}

impl CreditSubject {
    /// Checks that the limit counts this; the error names the field that is missing or not wanted.
    fn require(&self, per: LimitSubject) -> Result<(), ActionError> {
        const TOKEN: FieldError = FieldError::Rule("is required: the limit counts per token");
        const USER: FieldError = FieldError::Rule("is required: the limit counts per user");
        const NO_TOKEN: FieldError = FieldError::Rule("must be empty: the limit does not count per token");
        const NO_USER: FieldError = FieldError::Rule("must be empty: the limit does not count per user");
        let (field, rule) = match (self, per) {
            (Self::Token(_), LimitSubject::Token)
            | (Self::User(..), LimitSubject::User)
            | (Self::Organization, LimitSubject::Organization) => return Ok(()),
            (Self::Token(_), _) => ("token_id", NO_TOKEN),
            (_, LimitSubject::Token) => ("token_id", TOKEN),
            (_, LimitSubject::User) => ("user_id", USER),
            _ => ("user_id", NO_USER),
        };
        Err(ActionError::invalid(field, &rule))
    }
}

impl Actions {
    /// Adds credits to a balance of this organization, for a caller with `tokend:write` and no grant; returns the balance.
    /// A repeat by the same caller within seven days adds nothing and returns the same.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such plan, limit or token, another request with this id, the database. After a database
    /// error the outcome may be unknown; a retry is safe.
    pub async fn add_credits(&self, caller: &Caller, request: AddCredits) -> Result<i64, ActionError> {
        const TOO_MUCH: FieldError = FieldError::Rule("would raise the balance above 2^53");
        caller.may_set_plans()?;
        let organization_id = caller.organization(request.organization_id.clone())?;
        let store = self.admission.writes(caller).await?;
        let subject = subject(&store, &organization_id, &request).await?;
        store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let limit = match find(&mut transaction, &organization_id, &request).await {
                    Ok(limit) => limit,
                    Err(error) => {
                        locked.judge(&mut transaction).await?;
                        return Err(error);
                    }
                };
                let key = AllowanceKey {
                    plan_id: limit.plan_id,
                    limit: request.limit.as_str().into(),
                    subject: subject.clone(),
                };
                transaction.lock_balance(&key, &limit).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                caller.may_set_plans()?;
                caller.organization(Some(organization_id.clone()))?;
                let added_by = caller.principal.to_string();
                let request_mac = request.request_id.mac(&added_by);
                let addition = Addition { key, amount: request.amount, added_by };
                // Under the lock of the balance: a repeat at the same time has waited.
                if let Some((known, balance)) = transaction.addition(&request_mac).await? {
                    transaction.commit().await?;
                    return if known == addition { Ok(balance) } else { Err(ActionError::RequestIdReused) };
                }
                let balance = transaction.refilled_balance(&addition.key, &limit, now).await?;
                let sum = balance.credits.checked_add(request.amount).filter(|sum| *sum <= MAX_AMOUNT);
                let credits = sum.ok_or_else(|| ActionError::invalid("amount", &TOO_MUCH))?;
                let balance = tokend_core::limits::Balance { credits, ..balance };
                if !transaction.add_credits(&request_mac, &addition, balance, now).await? {
                    // The same id at the same time for another balance.
                    return Err(ActionError::RequestIdReused);
                }
                transaction.commit().await?;
                Ok(credits)
            })
            .await
    }
}

/// Returns the limit that a request names, and keeps its plan from being deleted.
async fn find(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    request: &AddCredits,
) -> Result<CreditLimit, ActionError> {
    const NO_CREDITS: FieldError = FieldError::Rule("is not a limit of credits of the plan");
    if !transaction.hold_plan(organization_id, &request.plan).await? {
        return Err(ActionError::PlanNotFound);
    }
    let limit = transaction.read_credits(organization_id, &request.plan, &request.limit).await?;
    let limit = limit.ok_or_else(|| ActionError::invalid("limit", &NO_CREDITS))?;
    request.subject.require(limit.per)?;
    Ok(limit)
}

/// Returns the subject as balances name it. A token's family never changes.
async fn subject(
    store: &Store,
    organization_id: &OrganizationId,
    request: &AddCredits,
) -> Result<std::sync::Arc<str>, ActionError> {
    const OTHER_PLAN: FieldError = FieldError::Rule("is of a token that does not name the plan");
    Ok(match &request.subject {
        CreditSubject::Token(id) => {
            let found = store.read_token(*id).await?.map(|(token, _)| token);
            let token = found.filter(|token| token.organization_id == *organization_id);
            let token = token.ok_or(ActionError::NotFound)?;
            if token.plan.as_ref() != Some(&request.plan) {
                return Err(ActionError::invalid("token_id", &OTHER_PLAN));
            }
            family_subject(&token.family().to_string())
        }
        CreditSubject::User(kind, user_id) => user_subject(*kind, user_id.as_str()),
        CreditSubject::Organization => organization_subject(),
    })
}

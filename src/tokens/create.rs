//! Creates a token: a new secret, its two verifiers, and the record, in this order, so that the record
//! never exists without them. Called by `CreateToken`.

pub use super::mint::Created;
use super::plans::hold_plan;
use super::request::{Body, Repeatable};
use super::users::require_enabled;
use super::{ActionError, Actions};
use crate::domain::event::EventKind;
use crate::domain::{
    Caller, Expiration, Grant, Labels, Networks, OrganizationId, Owner, OwnerKind, Permission, PlanName,
    Scopes, Token, TokenName, UserId,
};
use crate::secret::{RequestId, TokenId};
use crate::store::{PolicyContext, Stored};

pub(super) const RPC: &str = "CreateToken";

/// The fields of a `CreateToken` request.
#[derive(Debug, Clone)]
pub struct CreateToken {
    /// The token's organization; `None`: see [`Caller::organization`].
    pub organization_id: Option<OrganizationId>,
    /// The user that it belongs to.
    pub user_id: UserId,
    /// What the user id names.
    pub owner_kind: OwnerKind,
    /// Its name.
    pub name: TokenName,
    /// When it expires.
    pub expiration: Expiration,
    /// Its scopes.
    pub scopes: Scopes,
    /// Its labels.
    pub labels: Labels,
    /// The networks from which it may be used.
    pub allowed_cidrs: Networks,
    /// What the tokens that it issues may have at most; `None`: all that its scopes allow.
    pub grant: Option<Grant>,
    /// The plan whose limits it gets; `None`: the policy's default, else see [`Caller::issued_plan`].
    pub plan: Option<PlanName>,
    /// Identifies retries of this request.
    pub request_id: Option<RequestId>,
}

impl Actions {
    /// Creates a token for a caller with `tokend:write` or `tokend:self`.
    ///
    /// # Errors
    /// [`ActionError`]: access, the policy, an expiration that is not in the future, a request id that
    /// was used for another request, a plan that does not exist, overload, the database.
    pub async fn create_token(&self, caller: &Caller, request: CreateToken) -> Result<Created, ActionError> {
        // Checked again inside the transaction; here so that a refusal costs no hash.
        caller.require(Permission::WriteOwn)?;
        let organization_id = caller.organization(request.organization_id.clone())?;

        let repeatable = request.repeatable(caller, &organization_id);
        let _lock = match &repeatable {
            Some(repeatable) => Some(self.request_locks.take(caller.into(), repeatable.mac()).await?),
            None => None,
        };
        if let Some(repeatable) = &repeatable
            && let Some((caller, known)) = self.known(caller, &repeatable.mac()).await?
        {
            return repeated_for(&caller, self.repeated(repeatable, known)?);
        }
        let _permit = self.creations.take(caller.into())?;
        // One keyring for both: the stored request names the key that the secret was derived from.
        let keyring = self.keyring.get();
        let minted = self.minted(&keyring, repeatable.as_ref()).await?;
        let note = repeatable.as_ref().and_then(|request| request.note(&keyring, &minted));
        let owner =
            Owner { organization_id: &organization_id, user_id: &request.user_id, kind: request.owner_kind };
        let store = self.admission.writes(caller).await?;
        let stored = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let policy = transaction.hold_policy(&organization_id).await?;
                transaction.lock_owner(&policy, owner).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let known = transaction.claim_request(note.as_ref()).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                if let Some(known) = known {
                    transaction.commit().await?;
                    return Ok(Stored::Known(caller, Box::new(known)));
                }
                let context = transaction.policy_context((policy, now), owner, None).await?;
                let enabled = require_enabled(&mut transaction, owner).await;
                let token = new_token(&caller, &context, &organization_id, &request, minted.id)?;
                // Only now: a caller without access learns nothing of the user.
                enabled?;
                hold_plan(&mut transaction, &token).await?;
                let new = minted.store_as(token);
                transaction.insert_token(&new).await?;
                let by = &caller.principal;
                transaction.append_event(EventKind::Created, (None, &new.token), by, now).await?;
                transaction.commit().await?;
                Ok(Stored::New(new.token))
            })
            .await?;
        match (stored, &repeatable) {
            (Stored::New(token), _) => Ok(Created::new(token, minted)),
            (Stored::Known(caller, known), Some(repeatable)) => {
                repeated_for(&caller, self.repeated(repeatable, *known)?)
            }
            // Without a request id nothing is stored, so nothing is known.
            (Stored::Known(_, known), None) => Err(ActionError::Unrepeatable(known.token_id)),
        }
    }
}

impl CreateToken {
    fn repeatable(&self, caller: &Caller, organization_id: &OrganizationId) -> Option<Repeatable> {
        let body = Body::new(RPC)
            .text(organization_id.as_str())
            .text(self.user_id.as_str())
            .text(self.name.as_str())
            .expiration(Some(self.expiration))
            .scopes(&self.scopes)
            .labels(&self.labels)
            .networks(&self.allowed_cidrs)
            .grant(self.grant.as_ref());
        // Not part of the MAC without one, which must stay equal to those of stored requests.
        let body = match self.owner_kind {
            OwnerKind::User => body,
            kind => body.text(kind.word()),
        };
        let body = match &self.plan {
            None => body,
            Some(plan) => body.text("plan").text(plan.as_str()),
        };
        Some(Repeatable {
            rpc: RPC,
            organization_id: organization_id.as_str().to_owned(),
            caller: caller.principal.to_string(),
            request_id: self.request_id.clone()?,
            body,
        })
    }
}

/// Returns the earlier result to a retry, if the caller still has access.
fn repeated_for(caller: &Caller, created: Created) -> Result<Created, ActionError> {
    caller.may_issue_again(super::manageable(caller, Some(&created.token))?)?;
    Ok(created)
}

/// Returns the token that the request asks for, if the caller and the policy allow it.
fn new_token(
    caller: &Caller,
    &PolicyContext { ref policy, others, now, .. }: &PolicyContext,
    organization_id: &OrganizationId,
    request: &CreateToken,
    id: TokenId,
) -> Result<Token, ActionError> {
    caller.require(Permission::WriteOwn)?;
    caller.organization(Some(organization_id.clone()))?;
    let expire_time = super::resolve(request.expiration, now)?;
    let owner = (organization_id.clone(), request.user_id.clone());
    let mut token = Token {
        scopes: request.scopes.clone(),
        labels: request.labels.clone(),
        allowed_cidrs: request.allowed_cidrs.clone(),
        expire_time,
        grant: request.grant.clone(),
        owner_kind: request.owner_kind,
        plan: request.plan.clone(),
        ..Token::new(id, owner, request.name.clone(), (now, caller.principal.clone()))
    };
    if token.plan.is_none() {
        token.plan = policy.default_plan_of(&token).or(caller.issued_plan()).cloned();
    }
    super::check_grant(&token)?;
    caller.may_issue(&token)?;
    caller.may_issue_plan(token.plan.as_ref(), policy.default_plan.as_ref())?;
    policy.allows_end(&token)?;
    policy.allows_scopes(&token)?;
    policy.allows_plan(&token)?;
    policy.allows_another(&token, others)?;
    Ok(token)
}

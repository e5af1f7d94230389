//! Rotates a token: a new one with the same owner, name, scopes, labels and networks replaces it, and
//! it expires after a grace period. Called by `RotateToken`. A token may rotate itself, and gains
//! nothing by it.

use time::{Duration, OffsetDateTime};

use super::mint::{Created, Minted};
use super::request::{Body, Repeatable};
use super::users::require_enabled;
use super::{ActionError, Actions, StateError};
use crate::domain::event::EventKind;
use crate::domain::root::{LastRoot, is_root};
use crate::domain::{Caller, Expiration, Permission, Token, TokenState};
use crate::secret::{RequestId, TokenId};
use crate::store::{NewRequest, NewToken, PolicyContext, Stored, Transaction};

pub(super) const RPC: &str = "RotateToken";

/// The fields of a `RotateToken` request.
#[derive(Debug, Clone)]
pub struct RotateToken {
    /// The token to replace.
    pub id: TokenId,
    /// When the new one expires; `None`: when the old one would have. Always so if a token rotates
    /// itself.
    pub expiration: Option<Expiration>,
    /// How long the old one stays valid.
    pub grace_period: Duration,
    /// Identifies retries of this request.
    pub request_id: Option<RequestId>,
    /// What to do if the new token would be the last root token, and expire soon.
    pub last_root: LastRoot,
}

impl Actions {
    /// Rotates a token, for itself or for a caller with `tokend:write` or `tokend:self`.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, a token that is revoked, expired, disabled or
    /// already rotated, an expiration that is not in the future, the last root token, a request id that
    /// was used for another request, overload, the database.
    pub async fn rotate_token(&self, caller: &Caller, request: RotateToken) -> Result<Created, ActionError> {
        let by_itself = caller.is_token(request.id);
        if !by_itself {
            caller.require(Permission::WriteOwn)?;
        }
        // Checked again inside the transaction; here so that a refusal costs no hash.
        let found =
            self.admission.writes(caller).await?.read_token(request.id).await?.map(|(token, _)| token);
        let old = rotatable(caller, found.as_ref())?;

        let repeatable = request.repeatable(caller, old);
        let _lock = match &repeatable {
            Some(repeatable) => Some(self.request_locks.take(caller.into(), repeatable.mac()).await?),
            None => None,
        };
        if let Some(repeatable) = &repeatable
            && let Some((caller, known)) = self.known(caller, &repeatable.mac()).await?
        {
            return repeated_for(&caller, by_itself, self.repeated(repeatable, known)?);
        }
        let _permit = self.creations.take(caller.into())?;
        // One keyring for both: the stored request names the key that the secret was derived from.
        let keyring = self.keyring.get();
        let minted = self.minted(&keyring, repeatable.as_ref()).await?;
        let note = repeatable.as_ref().and_then(|request| request.note(&keyring, &minted));
        let store = self.admission.writes(caller).await?;
        let stored = store
            .retrying(async || {
                replace(store.begin().await?, caller, &request, (old, &minted), note.as_ref()).await
            })
            .await?;
        match (stored, &repeatable) {
            (Stored::New(token), _) => Ok(Created::new(token, minted)),
            (Stored::Known(caller, known), Some(repeatable)) => {
                repeated_for(&caller, by_itself, self.repeated(repeatable, *known)?)
            }
            // Without a request id nothing is stored, so nothing is known.
            (Stored::Known(_, known), None) => Err(ActionError::Unrepeatable(known.token_id)),
        }
    }
}

impl RotateToken {
    fn repeatable(&self, caller: &Caller, old: &Token) -> Option<Repeatable> {
        let body = Body::new(RPC)
            .text(&self.id.to_string())
            .expiration(self.expiration)
            .text(&self.grace_period.whole_nanoseconds().to_string());
        Some(Repeatable {
            rpc: RPC,
            organization_id: old.organization_id.as_str().to_owned(),
            caller: caller.principal.to_string(),
            request_id: self.request_id.clone()?,
            body,
        })
    }
}

/// Stores the new token in place of the old one, or returns what an earlier request with the same id did.
async fn replace(
    mut transaction: Transaction,
    caller: &Caller,
    request: &RotateToken,
    (old, minted): (&Token, &Minted),
    note: Option<&NewRequest>,
) -> Result<Stored<Token>, ActionError> {
    let owner = old.owner();
    let policy = transaction.hold_policy(owner.organization_id).await?;
    transaction.lock_owner(&policy, owner).await?;
    let locked = transaction.lock_caller(caller, Some(old.id)).await?;
    let known = transaction.claim_request(note).await?;
    let token = if known.is_none() { transaction.lock_token(old.id).await? } else { None };
    let ends_root = token.as_ref().is_some_and(is_root);
    let last = transaction.lock_roots(ends_root, request.last_root).await?;
    let (caller, now) = locked.judge(&mut transaction).await?;
    if let Some(known) = known {
        transaction.commit().await?;
        return Ok(Stored::Known(caller, Box::new(known)));
    }
    // As it is under its lock: it may have changed since it was read.
    let old = rotatable(&caller, token.as_ref())?;
    let successor = transaction.successor_id(old.id).await?;
    let context = transaction.policy_context((policy, now), owner, Some(old.id)).await?;
    let (ending, new) = rotated(&caller, (old, successor), &context, request, minted.id)?;
    require_enabled(&mut transaction, owner).await?;
    if last {
        transaction.require_another_root(&[old.id], Some(&new), now).await?;
    }
    transaction.supersede(&ending, &new).await?;
    let (new, by) = (minted.store_as(new), &caller.principal);
    transaction.insert_token(&new).await?;
    transaction.append_event(EventKind::Rotated, (Some(old), &ending), by, now).await?;
    transaction.append_event(EventKind::Created, (None, &new.token), by, now).await?;
    transaction.commit().await?;
    Ok(Stored::New(new.token))
}

/// Returns the token that the caller may rotate: its own, or one that it may change.
fn rotatable<'a>(caller: &Caller, token: Option<&'a Token>) -> Result<&'a Token, ActionError> {
    match token {
        Some(token) if caller.is_token(token.id) => Ok(token),
        token => super::manageable(caller, token),
    }
}

/// Returns the earlier result to a retry, if the caller still has access.
fn repeated_for(caller: &Caller, by_itself: bool, created: Created) -> Result<Created, ActionError> {
    if !by_itself {
        caller.may_issue_again(super::manageable(caller, Some(&created.token))?)?;
    }
    Ok(created)
}

/// Returns the old token as it ends, and the new one, if the caller and the policy allow it.
fn rotated(
    caller: &Caller,
    (old, successor): (&Token, Option<TokenId>),
    context: &PolicyContext,
    request: &RotateToken,
    id: TokenId,
) -> Result<(Token, Token), ActionError> {
    let now = context.now;
    match (old.state(now), successor) {
        (TokenState::Revoked, _) => return Err(StateError::Revoked.into()),
        (_, Some(successor)) => return Err(StateError::Rotated(successor).into()),
        (TokenState::Expired, None) => return Err(StateError::Expired.into()),
        (TokenState::Active, None) => {}
        // Disabled. A usable successor would bypass that.
        (_, None) if old.user_disable_time.is_some() => return Err(StateError::UserDisabled.into()),
        (_, None) => return Err(StateError::Disabled.into()),
    }
    let expire_time = match request.expiration {
        None => old.expire_time,
        Some(expiration) => super::resolve(expiration, now)?,
    };
    let new = Token {
        id,
        create_time: now,
        created_by: caller.principal.clone(),
        expire_time,
        last_use_time: None,
        last_refusal: None,
        rotated_from: Some(old.id),
        family_id: Some(old.family()),
        ..old.clone()
    };
    if !caller.is_token(old.id) {
        caller.may_issue_again(old)?;
        caller.may_issue(&new)?;
        caller.may_rotate_plan(new.plan.as_ref(), context.policy.default_plan.as_ref())?;
    }
    let ending = Token {
        expire_time: Some(old_end(old, request.grace_period, now)),
        superseded_by: Some(id),
        ..old.clone()
    };
    context.policy.allows_grace(&ending, now)?;
    context.policy.allows_end(&new)?;
    context.policy.allows_scopes(&new)?;
    context.policy.allows_plan(&new)?;
    // The successor replaces it in the count of active tokens, so no limit applies.
    Ok((ending, new))
}

/// Returns when the old token expires: after the grace period, but no later than before.
fn old_end(old: &Token, grace_period: Duration, now: OffsetDateTime) -> OffsetDateTime {
    // If the clock was set back, it must not expire before its creation.
    let end = now.saturating_add(grace_period).max(old.create_time.saturating_add(Duration::MICROSECOND));
    old.expire_time.map_or(end, |own| own.min(end))
}

impl Minted {
    /// Returns what to store for a token with this secret.
    pub(super) fn store_as(&self, token: Token) -> NewToken {
        NewToken { token, mac: self.mac, durable_hash: self.durable_hash.clone() }
    }
}

//! Revokes a token by its id or by its secret, with the tokens rotated from it; and all tokens of a
//! user. Called by `RevokeToken` and `RevokeUserTokens`.

use time::OffsetDateTime;

use super::users::NamedUser;
use super::{ActionError, Actions};
use crate::domain::root::{LastRoot, is_root};
use crate::domain::{Caller, Permission, ReservedScope, RevokeReason, Token, TokenState};
use crate::secret::TokenId;
use crate::store::{Member, OnChange, Store, Transaction, USER_DEADLINE};

/// Which tokens a revocation covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationExtent {
    /// The token and all tokens rotated from it, in any number of steps.
    Family,
    /// The token alone.
    OnlyThis,
}

/// A token that is revoked, by this call or before it.
#[derive(Debug)]
pub struct Revoked {
    /// The token, with its first revocation.
    pub token: Token,
    /// From this time on no replica accepts it.
    pub effective_time: OffsetDateTime,
}

/// A user whose tokens are revoked.
#[derive(Debug)]
pub struct RevokedUser {
    /// How many tokens this call revoked.
    pub count: u64,
    /// From this time on no replica accepts any of them.
    pub effective_time: OffsetDateTime,
}

/// What entitles the caller to revoke a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The caller's permissions.
    Permission,
    /// The caller has presented its secret: anyone who finds a secret may revoke it.
    Possession,
}

/// The fields of a `RevokeToken` request.
#[derive(Debug, Clone)]
pub struct RevokeToken {
    /// The token.
    pub id: TokenId,
    /// What entitles the caller.
    pub right: Right,
    /// Which tokens it covers.
    pub extent: RevocationExtent,
    /// The reason.
    pub reason: RevokeReason,
    /// What to do if it would end the last active root token; with possession it is revoked: a secret
    /// that was found must not stay valid.
    pub last_root: LastRoot,
}

impl Actions {
    /// Revokes a token. A revoked one keeps its first time and reason. `on_change` receives every token
    /// that is about to change.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, the last root token, the database. After a
    /// database error the outcome may be unknown; a retry is safe.
    pub async fn revoke_token(
        &self,
        caller: &Caller,
        request: &RevokeToken,
        on_change: OnChange<'_>,
    ) -> Result<Revoked, ActionError> {
        let RevokeToken { id, right, extent, last_root, .. } = *request;
        if right == Right::Permission {
            caller.require(Permission::WriteOwn)?;
        }
        let mut store = self.admission.revocations(caller).await?;
        let (extent, last_root) = match right {
            Right::Permission => (extent, last_root),
            Right::Possession => (extent_of_possession(&store, caller, id, extent).await?, LastRoot::Allow),
        };
        // Checked again inside the transaction; here so that nothing is locked for a token out of
        // reach.
        let found = store.read_token(id).await?.map(|(token, _)| token);
        allow(caller, right, found.as_ref())?;
        if found.is_some_and(|token| token.revoke_time.is_some())
            && (extent == RevocationExtent::OnlyThis || store.successors_are_revoked(id).await?)
        {
            drop(store);
            store = self.admission.writes(caller).await?;
        }
        let request = RevokeToken { extent, last_root, ..request.clone() };
        let token = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let locked = lock_and_judge(&mut transaction, caller, &request).await?;
                let LockedForRevocation { caller, target, ids, keeps_root, now } = locked;
                if ids.is_empty() {
                    transaction.commit().await?;
                    return Ok(target);
                }
                if keeps_root {
                    transaction.require_another_root(&ids, None, now).await?;
                }
                on_change(&ids);
                let by = &caller.principal;
                let revoked = transaction.revoke_tokens(&ids, id, &request.reason, by, now).await?;
                transaction.commit().await?;
                Ok(revoked.unwrap_or(target))
            })
            .await?;
        // In a separate statement, so later than the commit that has returned.
        Ok(Revoked { token, effective_time: store.effective_time().await? })
    }

    /// Revokes all tokens of a user, for a caller with `tokend:write` and every reserved scope among
    /// them. Revoked ones keep their first time and reason. `on_change` as in [`Self::revoke_token`].
    ///
    /// # Errors
    /// [`ActionError`]: access, the last root token, the database. After a database error the outcome
    /// may be unknown; a retry is safe.
    pub async fn revoke_user_tokens(
        &self,
        caller: &Caller,
        named: &NamedUser,
        (reason, last_root): (&RevokeReason, LastRoot),
        on_change: OnChange<'_>,
    ) -> Result<RevokedUser, ActionError> {
        let organization_id = named.authorize(caller, named.organization_id.clone())?;
        let owner = named.owner(&organization_id);
        let mut store = self.admission.bulk_revocations(caller).await?;
        if !store.has_unrevoked_tokens(owner).await? {
            drop(store);
            store = self.admission.writes(caller).await?;
        }
        let count = store
            .retrying_within(USER_DEADLINE, ActionError::is_conflict, async || {
                let mut transaction = store.begin_within(USER_DEADLINE).await?;
                transaction.lock_owner_alone(owner).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                transaction.lock_tokens_of_owner(owner).await?;
                let roots = transaction.lock_roots_of_owner(owner, last_root).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                named.authorize(&caller, Some(organization_id.clone()))?;
                let another_root = transaction.require_another_root(&roots, None, now).await;
                let (ids, reserved) = transaction.revoke_tokens_of_owner(owner, reason, now).await?;
                caller.may_end_reserved(reserved)?;
                // Only now: a caller without access learns nothing of root tokens.
                another_root?;
                if !ids.is_empty() {
                    on_change(&ids);
                    transaction.append_revocations(&ids, reason, &caller.principal).await?;
                }
                transaction.commit().await?;
                Ok(ids.len() as u64)
            })
            .await?;
        Ok(RevokedUser { count, effective_time: store.effective_time().await? })
    }
}

/// What a revocation has locked, as it is under its locks.
struct LockedForRevocation {
    /// The caller, judged after the last lock.
    caller: Caller,
    target: Token,
    /// The tokens that are not revoked yet.
    ids: Vec<TokenId>,
    /// Whether another root token has to remain.
    keeps_root: bool,
    /// The time after the last lock.
    now: OffsetDateTime,
}

/// Locks the caller, the token and the successors that the request covers, and checks that the caller may revoke them.
async fn lock_and_judge(
    transaction: &mut Transaction,
    caller: &Caller,
    request: &RevokeToken,
) -> Result<LockedForRevocation, ActionError> {
    let RevokeToken { id, right, extent, last_root, .. } = *request;
    let locked = transaction.lock_caller(caller, Some(id)).await?;
    let locked_target = transaction.lock_target(id).await?;
    let mut now = locked_target.lock_time;
    let mut caller = locked.judge_at(now)?;
    let target = allow(&caller, right, locked_target.token.as_ref())?;
    let successors = match extent {
        RevocationExtent::Family => transaction.lock_successors(&locked_target).await?,
        RevocationExtent::OnlyThis => Vec::new(),
    };
    let ends_root =
        is_root(target) || successors.iter().any(|member| member.token.as_ref().is_none_or(is_root));
    let keeps_root = transaction.lock_roots(ends_root, last_root).await?;
    if !successors.is_empty() || keeps_root {
        // The transaction may have waited for these locks, too.
        (caller, now) = locked.judge(transaction).await?;
    }
    for member in &successors {
        allow_member(&caller, right, member)?;
    }
    let own = Some(id).filter(|_| target.revoke_time.is_none());
    let members = successors.iter().filter(|member| !member.is_revoked).map(|member| member.id);
    let ids = own.into_iter().chain(members).collect();
    Ok(LockedForRevocation { caller, target: target.clone(), ids, keeps_root, now })
}

/// Returns the token if the caller may revoke it.
fn allow<'a>(caller: &Caller, right: Right, token: Option<&'a Token>) -> Result<&'a Token, ActionError> {
    match right {
        Right::Possession => token.ok_or(ActionError::NotFound),
        Right::Permission => super::manageable(caller, token),
    }
}

/// Checks that the caller may revoke a member of a family.
fn allow_member(caller: &Caller, right: Right, member: &Member) -> Result<(), ActionError> {
    match (right, &member.token) {
        (Right::Possession, _) => Ok(()),
        (Right::Permission, Some(token)) => super::manageable(caller, Some(token)).map(drop),
        // It cannot be read, so only a caller that may revoke everything may revoke it.
        (Right::Permission, None) => {
            Ok(caller.may_manage_reserved([ReservedScope::Root].into_iter().collect())?)
        }
    }
}

/// Returns which tokens a presented secret revokes. One that is no longer valid, from an old leak for
/// example, revokes no valid token: its holder gets no power over the rest of the family. Unless the
/// organization's policy ends the family whenever a superseded secret turns up, or the caller could
/// revoke the token by its id.
///
/// Expiration and revocation are never undone, so this need not be checked within the transaction.
async fn extent_of_possession(
    store: &Store,
    caller: &Caller,
    id: TokenId,
    extent: RevocationExtent,
) -> Result<RevocationExtent, ActionError> {
    let Some((token, now)) = store.read_token(id).await? else { return Ok(extent) };
    let over = matches!(token.state(now), TokenState::Expired | TokenState::Revoked);
    let by_permission = super::manageable(caller, Some(&token)).is_ok();
    if !over || by_permission || store.read_policy(&token.organization_id).await?.policy.reuse_detection {
        return Ok(extent);
    }
    Ok(RevocationExtent::OnlyThis)
}

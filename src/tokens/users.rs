//! Disables a user with all tokens, enables one again, and lists users. Called by `DisableUser`, `EnableUser` and
//! `ListUsers`.

use time::OffsetDateTime;

use super::{ActionError, Actions, StateError};
use crate::domain::event::{EventKind, changes_of_tokens, changes_of_user};
use crate::domain::root::LastRoot;
use crate::domain::users::{Disabling, User, UserListing, UserPosition};
use crate::domain::{
    Caller, OrganizationId, Owner, OwnerKind, Permission, ReservedScope, RevokeReason, UserId,
};
use crate::secret::TokenId;
use crate::store::{Member, OnChange, Transaction, USER_DEADLINE, UserPage};

/// How many tokens are read at once to judge whether they may be enabled.
const CHUNK: usize = 500;

/// A user as a request names one.
#[derive(Debug, Clone)]
pub struct NamedUser {
    /// The organization; `None`: see [`Caller::organization`].
    pub organization_id: Option<OrganizationId>,
    /// The id.
    pub user_id: UserId,
    /// What the id names.
    pub kind: OwnerKind,
}

/// A user who was disabled or enabled, by this call or before it.
#[derive(Debug)]
pub struct UserUsability {
    /// The organization.
    pub organization_id: OrganizationId,
    /// How many tokens this call disabled or enabled.
    pub count: u64,
    /// Since when the user is disabled; `None`: the user is not.
    pub disable_time: Option<OffsetDateTime>,
    /// From this time on every replica knows.
    pub effective_time: OffsetDateTime,
}

/// One page of users.
#[derive(Debug)]
pub struct UsersPage {
    /// The users.
    pub users: Vec<User>,
    /// Continues after this page; `None`: it was the last one.
    pub next_page_token: Option<String>,
}

impl NamedUser {
    /// Returns the user in this organization, which [`Caller::organization`] has checked.
    pub(super) fn owner<'a>(&'a self, organization_id: &'a OrganizationId) -> Owner<'a> {
        Owner { organization_id, user_id: &self.user_id, kind: self.kind }
    }

    /// Returns the organization, if the caller may change all tokens of the user. What their scopes require beyond
    /// that, the tokens say.
    pub(super) fn authorize(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
    ) -> Result<OrganizationId, ActionError> {
        caller.require(Permission::WriteAll)?;
        caller.may_end_all(&self.user_id, self.kind)?;
        Ok(caller.organization(organization_id)?)
    }
}

impl Actions {
    /// Disables a user with all tokens and portal sessions, for a caller with `tokend:write` and every reserved scope among them. A user who
    /// is disabled keeps the first time and reason. `on_change` gets each token that is about to change.
    ///
    /// # Errors
    /// [`ActionError`]: access, the last root token, the database. After a database error the outcome may be unknown; a
    /// retry is safe.
    pub async fn disable_user(
        &self,
        caller: &Caller,
        named: &NamedUser,
        (reason, last_root): (&RevokeReason, LastRoot),
        on_change: OnChange<'_>,
    ) -> Result<UserUsability, ActionError> {
        let organization_id = named.authorize(caller, named.organization_id.clone())?;
        let owner = named.owner(&organization_id);
        let mut store = self.admission.bulk_revocations(caller).await?;
        if store.is_disabled(owner).await? {
            drop(store);
            store = self.admission.writes(caller).await?;
        }
        let (count, disable_time) = store
            .retrying_within(USER_DEADLINE, ActionError::is_conflict, async || {
                let mut transaction = store.begin_within(USER_DEADLINE).await?;
                transaction.lock_owner_alone(owner).await?;
                if owner.kind == OwnerKind::User {
                    transaction.end_portals(owner.organization_id, owner.user_id).await?;
                }
                let locked = transaction.lock_caller(caller, None).await?;
                transaction.lock_tokens_of_owner(owner).await?;
                let roots = transaction.lock_roots_of_owner(owner, last_root).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                named.authorize(&caller, Some(organization_id.clone()))?;
                let another_root = transaction.require_another_root(&roots, None, now).await;
                let found = transaction.disabling(owner).await?;
                let disabling = found.clone().unwrap_or_else(|| Disabling {
                    disable_time: now,
                    disabled_by: caller.principal.to_string(),
                    reason: reason.as_str().to_owned(),
                });
                let (ids, reserved) =
                    transaction.disable_tokens_of_owner(owner, disabling.disable_time).await?;
                caller.may_end_reserved(reserved)?;
                // Only now: a caller without access learns nothing of root tokens.
                another_root?;
                let by = &caller.principal;
                if found.is_none() {
                    transaction.insert_disabling(owner, &disabling).await?;
                    let changes = changes_of_user(None, Some(&disabling));
                    let event = (EventKind::UserDisabled, &*changes);
                    transaction.append_user_event(event, owner, by, now).await?;
                }
                if !ids.is_empty() {
                    on_change(&ids);
                    let changes = changes_of_tokens(None, Some(&disabling));
                    let event = (EventKind::Disabled, &*changes);
                    transaction.append_events_of_owner(event, (owner, &ids), by, now).await?;
                }
                transaction.commit().await?;
                Ok((ids.len() as u64, disabling.disable_time))
            })
            .await?;
        // In a separate statement, so later than the commit that has returned.
        let effective_time = store.effective_time().await?;
        Ok(UserUsability { organization_id, count, disable_time: Some(disable_time), effective_time })
    }

    /// Enables a user again, for a caller with `tokend:write` that may enable each of the tokens. Takes back what
    /// disabling the user did, and nothing else. `on_change` as in [`Self::disable_user`].
    ///
    /// # Errors
    /// [`ActionError`]: access, the database. After a database error the outcome may be unknown; a retry is safe.
    pub async fn enable_user(
        &self,
        caller: &Caller,
        named: &NamedUser,
        on_change: OnChange<'_>,
    ) -> Result<UserUsability, ActionError> {
        let organization_id = named.authorize(caller, named.organization_id.clone())?;
        let owner = named.owner(&organization_id);
        let store = self.admission.writes(caller).await?;
        let count = store
            .retrying_within(USER_DEADLINE, ActionError::is_conflict, async || {
                let mut transaction = store.begin_within(USER_DEADLINE).await?;
                transaction.lock_owner_alone(owner).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                transaction.lock_tokens_of_owner(owner).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                named.authorize(&caller, Some(organization_id.clone()))?;
                let found = transaction.disabling(owner).await?;
                let ids = transaction.enable_tokens_of_owner(owner).await?;
                may_enable_all(&mut transaction, &caller, &ids).await?;
                let by = &caller.principal;
                if found.is_some() {
                    transaction.delete_disabling(owner).await?;
                    let changes = changes_of_user(found.as_ref(), None);
                    let event = (EventKind::UserEnabled, &*changes);
                    transaction.append_user_event(event, owner, by, now).await?;
                }
                if !ids.is_empty() {
                    on_change(&ids);
                    let changes = changes_of_tokens(found.as_ref(), None);
                    let event = (EventKind::Enabled, &*changes);
                    transaction.append_events_of_owner(event, (owner, &ids), by, now).await?;
                }
                transaction.commit().await?;
                Ok(ids.len() as u64)
            })
            .await?;
        let effective_time = store.effective_time().await?;
        Ok(UserUsability { organization_id, count, disable_time: None, effective_time })
    }

    /// Lists users for a caller with `tokend:read`.
    ///
    /// # Errors
    /// [`ActionError`]: access, a page token of another listing, the database.
    pub async fn list_users(
        &self,
        caller: &Caller,
        mut listing: UserListing,
        page_size: u32,
        page_token: Option<&str>,
    ) -> Result<UsersPage, ActionError> {
        caller.require(Permission::ReadAll)?;
        listing.organization_id = caller.listed_organization(listing.organization_id)?;
        let keyring = self.keyring.peek();
        let position = page_token.map(|text| listing.parse_page_token(text, &keyring)).transpose()?;
        drop(keyring);
        let store = self.admission.reads(caller).await?;
        // One user more than fits shows whether there is a next page.
        let UserPage { mut users, broken_off } =
            store.list_users(&listing, position, page_size.saturating_add(1)).await?;
        let more = users.len() > page_size as usize;
        users.truncate(page_size as usize);
        let last = users.last().filter(|_| more).map(|user| UserPosition {
            organization_id: user.organization_id.as_str().to_owned(),
            user_id: user.user_id.as_str().to_owned(),
            kind: user.kind.word().to_owned(),
        });
        let next = last.or(broken_off);
        let next_page_token = next.map(|position| listing.page_token(&position, &self.keyring.peek()));
        Ok(UsersPage { users, next_page_token })
    }
}

/// Checks that the caller may enable each of these tokens.
async fn may_enable_all(
    transaction: &mut Transaction,
    caller: &Caller,
    ids: &[TokenId],
) -> Result<(), ActionError> {
    for chunk in ids.chunks(CHUNK) {
        for Member { token, .. } in transaction.read_members(chunk).await? {
            match token {
                Some(token) => caller.may_issue(&token)?,
                // It cannot be read, so only a caller that may enable everything may enable it.
                None => caller.may_manage_reserved([ReservedScope::Root].into_iter().collect())?,
            }
        }
    }
    Ok(())
}

/// Refuses to create a token for a user who is disabled. Under the lock of the owner, in a later statement.
pub(super) async fn require_enabled(
    transaction: &mut Transaction,
    owner: Owner<'_>,
) -> Result<(), ActionError> {
    match transaction.disabling(owner).await? {
        Some(_) => Err(StateError::UserDisabled.into()),
        None => Ok(()),
    }
}

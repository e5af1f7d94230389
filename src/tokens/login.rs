//! Creates the token of a login: for a program that a person allowed to act for them, in a session that stands for one of
//! the person's own tokens. The new one is narrower than that in everything. Called by the console, which shows it
//! first, and by `ExchangeLoginCode`.

use time::OffsetDateTime;

use super::console_link::NoLink;
use super::create::Created;
use super::plans::hold_plan;
use super::users::require_enabled;
use super::{ActionError, Actions};
use crate::domain::event::EventKind;
use crate::domain::login::LoginRequest;
use crate::domain::policy::Policy;
use crate::domain::{Caller, CredentialError, Permission, Principal, Token};
use crate::secret::TokenId;

impl Actions {
    /// Returns the token that the caller may let a program have, as it would be now. Creates nothing.
    ///
    /// # Errors
    /// [`ActionError`]: access, the caller is not a token, overload, the database.
    pub async fn preview_login(&self, caller: &Caller, request: &LoginRequest) -> Result<Token, ActionError> {
        let own = self.own_token(caller).await?;
        login(caller, &own.0, request, (own.0.id, own.1), &Policy::default())
    }

    /// Creates the token of a login that was allowed in a session of the caller.
    ///
    /// # Errors
    /// [`ActionError`]: access, the policy, a disabled user, the caller is not a token, overload, the database.
    pub async fn create_login(
        &self,
        caller: &Caller,
        request: &LoginRequest,
    ) -> Result<Created, ActionError> {
        let (own, now) = self.own_token(caller).await?;
        // Checked again inside the transaction; here so that a refusal costs no hash.
        login(caller, &own, request, (own.id, now), &Policy::default())?;
        let owner = own.owner();
        let _permit = self.creations.take(caller.into())?;
        let minted = self.minted(&self.keyring.get(), None).await?;
        let store = self.admission.writes(caller).await?;
        let token = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let policy = transaction.hold_policy(owner.organization_id).await?;
                transaction.lock_owner(&policy, owner).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                let own = locked.token().ok_or(CredentialError::Invalid)?;
                let context = transaction.policy_context((policy, now), owner, None).await?;
                let mut token = login(&caller, own, request, (minted.id, context.now), &context.policy)?;
                token.expire_time =
                    token.expire_time.min(context.policy.latest_end(&token).or(token.expire_time));
                context.policy.allows_end(&token)?;
                context.policy.allows_scopes(&token)?;
                context.policy.allows_plan(&token)?;
                context.policy.allows_another(&token, context.others)?;
                require_enabled(&mut transaction, owner).await?;
                hold_plan(&mut transaction, &token).await?;
                let new = minted.store_as(token);
                transaction.insert_token(&new).await?;
                let by = &caller.principal;
                transaction.append_event(EventKind::Created, (None, &new.token), by, context.now).await?;
                transaction.commit().await?;
                Ok(new.token)
            })
            .await?;
        Ok(Created::new(token, minted))
    }

    /// Reads the token that the caller is.
    async fn own_token(&self, caller: &Caller) -> Result<(Token, OffsetDateTime), ActionError> {
        caller.require(Permission::WriteOwn)?;
        let Principal::Token(id) = caller.principal else { return Err(NoLink::NoToken.into()) };
        let read = self.admission.reads(caller).await?.read_token(id).await?;
        Ok(read.ok_or(CredentialError::Invalid)?)
    }
}

/// Returns the token of a login, if the caller may have it.
fn login(
    caller: &Caller,
    own: &Token,
    request: &LoginRequest,
    (id, now): (TokenId, OffsetDateTime),
    policy: &Policy,
) -> Result<Token, ActionError> {
    caller.require(Permission::WriteOwn)?;
    let mut token = request.token(own, id, now).map_err(|error| ActionError::invalid("scope", &error))?;
    token.plan = policy.default_plan_of(&token).or(caller.issued_plan()).cloned();
    super::check_grant(&token)?;
    caller.may_delegate(&token)?;
    caller.may_issue_plan(token.plan.as_ref(), policy.default_plan.as_ref())?;
    Ok(token)
}

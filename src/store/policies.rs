//! Organizations' policies: read, set, and locked by each transaction that creates or changes a token.
//! Called by the policy actions and by the store's own transactions, which lock the policy before
//! anything else.

use time::{Duration, OffsetDateTime};

use super::columns::Time;
use super::locks::clock;
use super::transaction::Transaction;
use super::{Store, StoreError, owners, rows};
use crate::domain::policy::{Policy, StoredPolicy};
use crate::domain::{OrganizationId, Owner, PlanName, Principal, ReservedScope, Scope, Scopes};
use crate::secret::TokenId;

/// The columns of `policies` that make a [`StoredPolicy`].
struct PolicyRow {
    longest_lifetime: Option<i64>,
    expiration_required: bool,
    longest_grace: Option<i64>,
    most_active_tokens_per_user: Option<i32>,
    allowed_scopes: Vec<String>,
    reuse_detection: bool,
    plan_required: bool,
    default_plan: Option<String>,
    updated_by: Option<String>,
    update_time: Option<Time>,
}

/// The constraints on a token that is created or changed.
#[derive(Debug)]
pub struct PolicyContext {
    /// The policy of its organization, which cannot change until the transaction ends.
    pub policy: Policy,
    /// How many other tokens of its user are active; zero if the policy has no limit.
    pub others: u32,
    /// The database's time after the last lock: used for judging, counting and creating.
    pub now: OffsetDateTime,
}

/// Builds the query for an organization's [`PolicyRow`] whose text ends with the given clauses.
macro_rules! select_policy {
    ($organization:expr, $clauses:literal) => {
        sqlx::query_as!(
            PolicyRow,
            r#"SELECT longest_lifetime, expiration_required, longest_grace, most_active_tokens_per_user,
                 allowed_scopes, reuse_detection, plan_required, default_plan, updated_by, update_time AS "update_time: _"
               FROM policies WHERE organization_id = $1 "#
                + $clauses,
            $organization.as_str()
        )
    };
}

impl Store {
    /// Reads an organization's policy; one that was never set allows everything.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn read_policy(&self, organization_id: &OrganizationId) -> Result<StoredPolicy, StoreError> {
        self.within(async {
            let row = select_policy!(organization_id, "").fetch_optional(self.single()?).await?;
            row.map_or_else(|| Ok(StoredPolicy::default()), StoredPolicy::try_from)
        })
        .await
    }

    /// Counts the tokens of a user as [`Transaction::policy_context`] does, without a lock: for people to see.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn read_count(&self, policy: &Policy, owner: Owner<'_>) -> Result<u32, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            let now = clock(&mut transaction).await?;
            Ok(transaction.policy_context((policy.clone(), now), owner, None).await?.others)
        })
        .await
    }
}

impl Transaction {
    /// Reads the policy of an organization and locks it against changes. Before any other lock.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn hold_policy(&mut self, organization_id: &OrganizationId) -> Result<Policy, StoreError> {
        if let Some(row) = select_policy!(organization_id, "FOR SHARE").fetch_optional(&mut *self).await? {
            return Ok(StoredPolicy::try_from(row)?.policy);
        }
        put_row(self, organization_id).await?;
        let row = select_policy!(organization_id, "FOR SHARE").fetch_one(self).await?;
        Ok(StoredPolicy::try_from(row)?.policy)
    }

    /// Locks the policy of an organization, to replace it, and returns it. Waits for transactions under the old one.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_policy(
        &mut self,
        organization_id: &OrganizationId,
    ) -> Result<StoredPolicy, StoreError> {
        put_row(self, organization_id).await?;
        select_policy!(organization_id, "FOR UPDATE").fetch_one(self).await?.try_into()
    }

    /// Replaces the whole policy of an organization, under [`Self::lock_policy`].
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn put_policy(
        &mut self,
        organization_id: &OrganizationId,
        policy: &Policy,
        actor: &Principal,
        now: OffsetDateTime,
    ) -> Result<StoredPolicy, StoreError> {
        let scopes: Vec<String> =
            policy.allowed_scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        sqlx::query!(
            "UPDATE policies SET longest_lifetime = $2, expiration_required = $3, longest_grace = $4,
                     most_active_tokens_per_user = $5, allowed_scopes = $6, reuse_detection = $7,
                     updated_by = $8, update_time = $9, plan_required = $10, default_plan = $11
                 WHERE organization_id = $1",
            organization_id.as_str(),
            policy.longest_lifetime.map(Duration::whole_seconds),
            policy.expiration_required,
            policy.longest_grace.map(Duration::whole_seconds),
            policy.most_active_tokens.map(|most| i32::try_from(most).unwrap_or(i32::MAX)),
            &scopes,
            policy.reuse_detection,
            actor.to_string(),
            now,
            policy.plan_required,
            policy.default_plan.as_ref().map(PlanName::as_str)
        )
        .execute(&mut *self)
        .await?;
        self.note_change();
        select_policy!(organization_id, "").fetch_one(self).await?.try_into()
    }

    /// Takes the lock of a user for whom a token is created: shared, or exclusive if the policy limits
    /// the number of tokens, so that no other transaction creates one between the count and the commit.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_owner(&mut self, policy: &Policy, owner: Owner<'_>) -> Result<(), StoreError> {
        // Chosen before the first lock: two transactions that hold it shared could not both go on to
        // hold it exclusively.
        match policy.most_active_tokens {
            None => owners::lock_shared(self, owner).await,
            Some(_) => owners::lock_alone(self, owner).await,
        }
    }

    /// Completes the context: counts the active tokens of a user except the one to be replaced, if the
    /// policy has a limit; tokens with an active successor do not count, disabled ones do. Call it only
    /// under [`Self::lock_owner`], in a later statement, with the time after the last lock: an earlier
    /// one would count expired tokens, and miss those created meanwhile.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn policy_context(
        &mut self,
        (policy, now): (Policy, OffsetDateTime),
        Owner { organization_id, user_id, kind }: Owner<'_>,
        replaced: Option<TokenId>,
    ) -> Result<PolicyContext, StoreError> {
        if policy.most_active_tokens.is_none() {
            return Ok(PolicyContext { policy, others: 0, now });
        }
        let row = sqlx::query!(
            r#"SELECT count(*) AS "others!" FROM tokens t
           WHERE owner_key(organization_id, user_id) = owner_key($1, $2) AND organization_id = $1 AND user_id = $2
               AND owner_kind = $6 AND revoke_time IS NULL AND (expire_time IS NULL OR expire_time > $5)
               AND NOT scopes @> ARRAY[$3::text] AND id IS DISTINCT FROM $4
               AND NOT EXISTS (SELECT FROM tokens s
                   WHERE s.family_id = t.family_id AND s.generation > t.generation AND s.revoke_time IS NULL
                   AND (s.expire_time IS NULL OR s.expire_time > $5))"#,
            organization_id.as_str(),
            user_id.as_str(),
            ReservedScope::Root.word(),
            replaced.map(rows::uuid),
            now,
            kind.word()
        )
        .fetch_one(self)
        .await?;
        let others = u32::try_from(row.others).unwrap_or(u32::MAX);
        Ok(PolicyContext { policy, others, now })
    }
}

/// Ensures that the organization's row exists: a lock needs one. In a separate statement, so that the
/// next one sees the row of a faster transaction.
async fn put_row(transaction: &mut Transaction, organization_id: &OrganizationId) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO policies (organization_id) VALUES ($1) ON CONFLICT DO NOTHING",
        organization_id.as_str()
    )
    .execute(transaction)
    .await?;
    Ok(())
}

impl TryFrom<PolicyRow> for StoredPolicy {
    type Error = StoreError;

    fn try_from(row: PolicyRow) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "policies", column };
        let scopes = row.allowed_scopes.iter().map(|text| Scope::parse(text)).collect::<Result<_, _>>();
        let scopes = scopes.and_then(Scopes::new).map_err(|_| corrupt("allowed_scopes"))?;
        let default_plan = row.default_plan.map(|name| PlanName::parse(&name)).transpose();
        let most = row.most_active_tokens_per_user.map(u32::try_from).transpose();
        Ok(Self {
            policy: Policy {
                longest_lifetime: row.longest_lifetime.map(Duration::seconds),
                expiration_required: row.expiration_required,
                longest_grace: row.longest_grace.map(Duration::seconds),
                most_active_tokens: most.map_err(|_| corrupt("most_active_tokens_per_user"))?,
                allowed_scopes: scopes,
                reuse_detection: row.reuse_detection,
                plan_required: row.plan_required,
                default_plan: default_plan.map_err(|_| corrupt("default_plan"))?,
            },
            updated_by: row.updated_by,
            update_time: row.update_time.and_then(Time::moment),
        })
    }
}

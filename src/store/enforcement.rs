//! Checks the tokens of an organization against a policy: finds those that break it, and changes a
//! batch of them in one transaction. Called by the enforcement actions. The domain decides which rule
//! is broken and what fixes it; this file reads the state of each token.

use std::collections::{HashMap, HashSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::columns::{FIRST_MOMENT, Time};
use super::locks::clock;
use super::pooling::Transaction;
use super::revoke::Touch;
use super::rows::{self, TokenRow, select_tokens};
use super::transaction::TransactionError;
use super::{Store, StoreError, owners};
use crate::domain::enforcement::{Breach, Remedy, Standing};
use crate::domain::event::EventKind;
use crate::domain::page::Position;
use crate::domain::policy::{Policy, Rule};
use crate::domain::{
    Caller, OrganizationId, ReservedScope, RevokeReason, Scope, Scopes, Token, UserId, size,
};

/// How many tokens one page examines, oldest first.
const WINDOW: i64 = 250;

/// The breaches of a policy in one window of an organization's tokens.
#[derive(Debug)]
pub struct Breaches {
    /// The tokens that break it, oldest first.
    pub breaches: Vec<Breach>,
    /// Where the next window starts; `None`: there is nothing more.
    pub next: Option<Position>,
}

/// A window of tokens that were made to comply.
#[derive(Debug)]
pub struct Enforced {
    /// The tokens as they were, and what was done with them.
    pub done: Breaches,
    /// The policy that was enforced.
    pub policy: Policy,
    /// From this time on every replica knows.
    pub effective_time: OffsetDateTime,
}

impl Store {
    /// Finds tokens of an organization that would break a policy, in the window after `from`.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn find_breaches(
        &self,
        organization_id: &OrganizationId,
        policy: &Policy,
        from: Option<Position>,
    ) -> Result<Breaches, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            find(&mut transaction, organization_id, policy, from).await
        })
        .await
    }

    /// Fixes the breaches of the organization's policy in the window that `begin` returns, given the
    /// policy and the caller as they are in this transaction. `touch` receives every token that is
    /// about to change. The inner result is the refusal of `begin`, or the caller's.
    ///
    /// # Errors
    /// [`StoreError`]; the outcome may be unknown then, and a retry is safe.
    pub async fn enforce_policy<E: From<TransactionError>>(
        &self,
        caller: &Caller,
        organization_id: &OrganizationId,
        begin: impl Fn(&Caller, &Policy) -> Result<Option<Position>, E>,
        touch: Touch<'_>,
    ) -> Result<Result<Enforced, E>, StoreError> {
        let done = self
            .retrying(async || {
                let mut transaction = self.begin().await?;
                let policy = transaction.hold_policy(organization_id).await?;
                // With the caller as it arrived, only to learn which users' locks are needed: those
                // come before its own.
                let from = match begin(caller, &policy) {
                    Ok(from) => from,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let seen = find(&mut transaction, organization_id, &policy, from).await?;
                let owners = lock_owners(&mut transaction, &policy, organization_id, &seen).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let caller = match locked.judge(&mut transaction).await {
                    Ok((caller, _)) => caller,
                    Err(TransactionError::Store(error)) => return Err(error),
                    Err(refusal) => return Ok(Err(refusal.into())),
                };
                if let Err(refusal) = begin(&caller, &policy) {
                    return Ok(Err(refusal));
                }
                // Searched again: during the wait for the locks, one token may have been rotated, which
                // makes it the newest, and another one the oldest in excess.
                let found = find(&mut transaction, organization_id, &policy, from).await?;
                let found = of_owners(found, owners.as_ref(), from);
                let ids: Vec<Uuid> =
                    found.breaches.iter().map(|breach| rows::uuid(breach.token.id)).collect();
                lock_tokens(&mut transaction, &ids).await?;
                let (caller, now) = match locked.judge(&mut transaction).await {
                    Ok(judged) => judged,
                    Err(TransactionError::Store(error)) => return Err(error),
                    Err(refusal) => return Ok(Err(refusal.into())),
                };
                // And examined again, now that none of it changes.
                let breaches = examine(&mut transaction, &ids, &policy, now).await?;
                touch(&breaches.iter().map(|breach| breach.token.id).collect::<Vec<_>>());
                for breach in &breaches {
                    mend(&mut transaction, breach, &caller, now).await?;
                }
                transaction.commit().await?;
                Ok(Ok((Breaches { breaches, next: found.next }, policy)))
            })
            .await?;
        match done {
            Err(refusal) => Ok(Err(refusal)),
            // In a separate statement, so later than the commit that has returned.
            Ok((done, policy)) => {
                Ok(Ok(Enforced { done, policy, effective_time: self.effective_time().await? }))
            }
        }
    }
}

/// Finds the breaches of a policy in the window after `from`, as many as fit into one response.
async fn find(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    policy: &Policy,
    from: Option<Position>,
) -> Result<Breaches, StoreError> {
    // In any state: so each page costs the same.
    let rows = sqlx::query!(
        r#"SELECT id, create_time AS "create_time: Time", organization_id = $1 AS "own!" FROM tokens
           WHERE owner_key(organization_id, '') = owner_key($1, '')
               AND (create_time, id_order(id)) > (coalesce($2::timestamptz, '-infinity'), id_order($3::uuid))
           ORDER BY create_time, id_order(id) LIMIT $4"#,
        organization_id.as_str(),
        from.and_then(|position| position.time),
        from.map_or(Uuid::nil(), |position| rows::uuid(position.id)),
        WINDOW
    )
    .fetch_all(&mut *transaction)
    .await?;
    let full = i64::try_from(rows.len()).is_ok_and(|found| found == WINDOW);
    // An invalid time is before or after all others: the skipped rows cannot be read either.
    let end = rows.last().filter(|_| full).and_then(|row| match row.create_time.moment() {
        Some(time) => Some(Position { time: Some(time), id: rows::token_id(row.id) }),
        None if row.create_time.is_early() => {
            Some(Position { time: Some(FIRST_MOMENT), id: rows::token_id(Uuid::nil()) })
        }
        None => None,
    });
    // Another organization may have the same key.
    let ids: Vec<Uuid> = rows.into_iter().filter(|row| row.own).map(|row| row.id).collect();
    let now = clock(transaction).await?;
    let mut breaches = examine(transaction, &ids, policy, now).await?;
    let fitting = fitting(&breaches);
    if fitting == breaches.len() {
        return Ok(Breaches { breaches, next: end });
    }
    breaches.truncate(fitting);
    let next = breaches.last().map(position);
    Ok(Breaches { breaches, next })
}

/// Returns how many of these, from the first, fit into a response; at least one if there is one.
fn fitting(breaches: &[Breach]) -> usize {
    // What the token loses is in the response, besides what it has.
    size::fitting(breaches.iter().map(|breach| 2 * size::of_token(&breach.token)))
}

/// Examines those of these tokens that are neither revoked nor expired at `now`, oldest first.
async fn examine(
    transaction: &mut Transaction,
    ids: &[Uuid],
    policy: &Policy,
    now: OffsetDateTime,
) -> Result<Vec<Breach>, StoreError> {
    let standings = standings(transaction, ids, policy, now).await?;
    let tokens = select_tokens!(
        "WHERE id = ANY($1) AND revoke_time IS NULL AND (expire_time IS NULL OR expire_time > $2)
         ORDER BY create_time, id_order(id)",
        ids,
        now
    )
    .fetch_all(transaction)
    .await?;
    let mut breaches = Vec::new();
    for row in tokens {
        let standing = standings.get(&row.id).copied().unwrap_or_default();
        // A token that cannot be read must not prevent fixing the others.
        if let Ok(token) = Token::try_from(row) {
            breaches.extend(policy.breach(token, standing, now));
        }
    }
    Ok(breaches)
}

async fn standings(
    transaction: &mut Transaction,
    ids: &[Uuid],
    policy: &Policy,
    now: OffsetDateTime,
) -> Result<HashMap<Uuid, Standing>, StoreError> {
    // Once per user: the oldest token within the limit, counted from the newest. Tokens that the policy
    // itself ends do not count: the same conditions as in `Policy::breach`.
    let rows = sqlx::query!(
        r#"WITH owners AS (
               SELECT DISTINCT organization_id, user_id FROM tokens WHERE id = ANY($1) AND $3::bigint > 0
           ), last AS (
               SELECT o.organization_id, o.user_id, n.create_time, n.id
               FROM owners o CROSS JOIN LATERAL (
                   SELECT n.create_time, n.id FROM tokens n
                   WHERE owner_key(n.organization_id, n.user_id) = owner_key(o.organization_id, o.user_id)
                       AND n.organization_id = o.organization_id AND n.user_id = o.user_id
                       AND n.revoke_time IS NULL AND (n.expire_time IS NULL OR n.expire_time > $7)
                       AND NOT n.scopes @> ARRAY[$2::text]
                       AND NOT EXISTS (SELECT FROM tokens s
                           WHERE s.family_id = n.family_id AND s.generation > n.generation AND s.revoke_time IS NULL
                           AND (s.expire_time IS NULL OR s.expire_time > $7))
                       AND NOT (n.expire_time IS NULL AND $4 AND NOT $5)
                       AND NOT n.create_time <= coalesce($6::timestamptz, '-infinity')
                   ORDER BY n.create_time DESC, id_order(n.id) DESC OFFSET greatest($3 - 1, 0) LIMIT 1) AS n
           )
           SELECT t.id AS "id!", t.supersede_time AS "rotation?: Time",
               EXISTS (SELECT FROM tokens s
                   WHERE s.family_id = t.family_id AND s.generation > t.generation AND s.revoke_time IS NULL
                       AND (s.expire_time IS NULL OR s.expire_time > $7)) AS "superseded!",
               coalesce((t.create_time, id_order(t.id)) < (last.create_time, id_order(last.id)), false) AS "crowded_out!"
           FROM tokens t
               LEFT JOIN last ON last.organization_id = t.organization_id AND last.user_id = t.user_id
           WHERE t.id = ANY($1)"#,
        ids,
        ReservedScope::Root.word(),
        i64::from(policy.most_active_tokens.unwrap_or(0)),
        policy.expiration_required,
        policy.longest_lifetime.is_some(),
        policy.outlived_since(now),
        now
    )
    .fetch_all(transaction)
    .await?;
    let standings = rows.into_iter().map(|row| {
        // Of a successor that cannot be read, only its existence counts.
        let rotation = row.rotation.map(|time| time.moment().unwrap_or(now));
        let (superseded, crowded_out) = (row.superseded, row.crowded_out);
        (row.id, Standing { rotation, superseded, crowded_out })
    });
    Ok(standings.collect())
}

/// If tokens are counted, locks out the creation of tokens for the users of these breaches, and returns
/// the users; `None`: not counted. A user whose oldest token may stay has none in excess: no other
/// users need be locked.
async fn lock_owners(
    transaction: &mut Transaction,
    policy: &Policy,
    organization_id: &OrganizationId,
    seen: &Breaches,
) -> Result<Option<HashSet<UserId>>, StoreError> {
    if policy.most_active_tokens.is_none() {
        return Ok(None);
    }
    let users: HashSet<UserId> = seen.breaches.iter().map(|breach| breach.token.user_id.clone()).collect();
    owners::lock_each_alone(transaction, organization_id, users.iter()).await?;
    Ok(Some(users))
}

/// Stops before the first token of a user that is not locked: the next page starts with it.
fn of_owners(mut found: Breaches, owners: Option<&HashSet<UserId>>, from: Option<Position>) -> Breaches {
    let Some(owners) = owners else { return found };
    let locked = found.breaches.iter().take_while(|breach| owners.contains(&breach.token.user_id)).count();
    if locked < found.breaches.len() {
        found.breaches.truncate(locked);
        found.next = found.breaches.last().map(position).or(from);
    }
    found
}

fn position(breach: &Breach) -> Position {
    Position { time: Some(breach.token.create_time), id: breach.token.id }
}

/// Locks these tokens, oldest first, as rotations do.
async fn lock_tokens(transaction: &mut Transaction, ids: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!("SELECT id FROM tokens WHERE id = ANY($1) ORDER BY create_time, id FOR UPDATE", ids)
        .fetch_all(transaction)
        .await?;
    Ok(())
}

async fn mend(
    transaction: &mut Transaction,
    breach: &Breach,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let token = &breach.token;
    match &breach.remedy {
        Remedy::Revoke(rule) => {
            transaction.revoke_tokens(&[token.id], &reason(*rule)?, &caller.principal, now).await
        }
        Remedy::Narrow { expire_time, scopes } => {
            let kept = token.scopes.iter().filter(|scope| !scopes.contains(scope)).cloned().collect();
            let kept =
                Scopes::new(kept).map_err(|_| StoreError::Corrupt { table: "tokens", column: "scopes" })?;
            let expire_time = expire_time.or(token.expire_time);
            let after = Token { expire_time, scopes: kept, ..token.clone() };
            let scopes: Vec<&str> = after.scopes.iter().map(Scope::as_str).collect();
            sqlx::query!(
                "UPDATE tokens SET expire_time = $2, scopes = $3::text[] WHERE id = $1",
                rows::uuid(token.id),
                after.expire_time,
                &scopes as _
            )
            .execute(&mut *transaction)
            .await?;
            let by = &caller.principal;
            transaction.append_event(EventKind::Updated, (Some(token), &after), by, now).await
        }
    }
}

fn reason(rule: Rule) -> Result<RevokeReason, StoreError> {
    let text = format!("policy: {}", rule.word());
    RevokeReason::parse(&text).map_err(|_| StoreError::Corrupt { table: "tokens", column: "revoke_reason" })
}

//! Checks the tokens of an organization against a policy: finds those that break it, and fixes them.
//! Called by the enforcement actions. The domain decides which rule is broken and what fixes it; this
//! file reads the state of each token.

use std::collections::HashSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::columns::{FIRST_MOMENT, Time};
use super::locks::clock;
use super::rows::{self, TokenRow, token_query};
use super::transaction::Transaction;
use super::{Store, StoreError, owners};
use crate::domain::counted_users::{CountedUsers, TokenOrder};
use crate::domain::enforcement::{Breach, Remedy, TokenContext};
use crate::domain::event::EventKind;
use crate::domain::page::Position;
use crate::domain::policy::{Policy, Rule};
use crate::domain::{OrganizationId, Principal, ReservedScope, RevokeReason, Scopes, Token, UserId, size};
use crate::secret::TokenId;

/// How many tokens one page examines, oldest first.
const TOKENS_PER_PAGE: i64 = 250;

/// The breaches of a policy in one window of an organization's tokens.
#[derive(Debug)]
pub struct Breaches {
    /// The tokens that break it, oldest first.
    pub breaches: Vec<Breach>,
    /// Where the next window starts; `None`: there is nothing more.
    pub next: Option<Position>,
    /// The tokens of the window that are subject to policies, oldest first, with their users.
    subject: Vec<(TokenId, UserId)>,
}

impl Store {
    /// Finds tokens of an organization that would break a policy, in the window after `from`. Counts the
    /// tokens of users that are not yet in `counted`, and adds them.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn find_breaches(
        &self,
        organization_id: &OrganizationId,
        policy: &Policy,
        from: Option<Position>,
        counted: &mut CountedUsers,
    ) -> Result<Breaches, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            find(&mut transaction, organization_id, policy, from, counted).await
        })
        .await
    }
}

impl Breaches {
    /// Returns the users of the tokens that break the policy, of any kind.
    fn users(&self) -> HashSet<&UserId> {
        self.breaches.iter().map(|breach| &breach.token.user_id).collect()
    }

    /// Leaves to the next window what does not fit into a response.
    fn fitting(mut self) -> Self {
        // What the token loses is in the response, besides what it has.
        let fitting = size::fitting(self.breaches.iter().map(|breach| 2 * size::of_token(&breach.token)));
        if fitting < self.breaches.len() {
            self.breaches.truncate(fitting);
            let last = self.breaches.last();
            self.next = last.map(position);
            let end = self.subject.iter().position(|(id, _)| last.is_some_and(|last| last.token.id == *id));
            self.subject.truncate(end.map_or(0, |end| end + 1));
        }
        self
    }
}

impl Transaction {
    /// Finds the breaches of a policy in the window after `from`, as many as fit into one response.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn find_breaches(
        &mut self,
        organization_id: &OrganizationId,
        policy: &Policy,
        from: Option<Position>,
    ) -> Result<Breaches, StoreError> {
        find(self, organization_id, policy, from, &mut CountedUsers::default()).await
    }

    /// If tokens are counted, locks out the creation of tokens for the users of these breaches: until then a
    /// rotation may make the oldest token of a user the newest, and the next one too many. Returns the tokens that
    /// may break the policy. A user whose oldest token may stay has none in excess: no other users need be locked.
    /// Before the caller's lock.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_owners(
        &mut self,
        policy: &Policy,
        organization_id: &OrganizationId,
        seen: &Breaches,
    ) -> Result<Vec<TokenId>, StoreError> {
        if policy.most_active_tokens.is_none() {
            return Ok(seen.breaches.iter().map(|breach| breach.token.id).collect());
        }
        let users = seen.users();
        owners::lock_each_alone(self, organization_id, users.iter().copied()).await?;
        Ok(seen.subject.iter().filter(|(_, user)| users.contains(user)).map(|(id, _)| *id).collect())
    }

    /// Locks these tokens, oldest first, as rotations do.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_tokens(&mut self, ids: &[TokenId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = ids.iter().copied().map(rows::uuid).collect();
        sqlx::query!("SELECT id FROM tokens WHERE id = ANY($1) ORDER BY create_time, id FOR UPDATE", &ids)
            .fetch_all(self)
            .await?;
        Ok(())
    }

    /// Finds the breaches among those of these locked tokens of an organization that are neither revoked nor
    /// expired at `now`, as many as fit into one response. `next`: where the next window starts.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn examine(
        &mut self,
        organization_id: &OrganizationId,
        ids: &[TokenId],
        policy: &Policy,
        (now, next): (OffsetDateTime, Option<Position>),
    ) -> Result<Breaches, StoreError> {
        let ids: Vec<Uuid> = ids.iter().copied().map(rows::uuid).collect();
        let found = examine(self, organization_id, &ids, policy, now, &mut CountedUsers::default()).await?;
        Ok(Breaches { next, ..found }.fitting())
    }

    /// Revokes a locked token, or takes what the policy does not allow, and records it.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn fix(
        &mut self,
        breach: &Breach,
        actor: &Principal,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let token = &breach.token;
        match &breach.remedy {
            Remedy::Revoke(rule) => {
                self.revoke_tokens(&[token.id], token.id, &reason(*rule)?, actor, now).await?;
                Ok(())
            }
            Remedy::Narrow { expire_time, scopes } => {
                let kept = token.scopes.iter().filter(|scope| !scopes.contains(scope)).cloned().collect();
                let kept = Scopes::new(kept)
                    .map_err(|_| StoreError::Corrupt { table: "tokens", column: "scopes" })?;
                let expire_time = expire_time.or(token.expire_time);
                let after = Token { expire_time, scopes: kept, ..token.clone() };
                self.update_token(&after).await?;
                self.append_event(EventKind::Updated, (Some(token), &after), actor, now).await
            }
        }
    }
}

async fn find(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    policy: &Policy,
    from: Option<Position>,
    counted: &mut CountedUsers,
) -> Result<Breaches, StoreError> {
    transaction.scan_in_order().await?;
    // In any state: so each page costs the same.
    let rows = sqlx::query!(
        r#"SELECT id, create_time AS "create_time: Time", organization_id = $1 AS "own!" FROM tokens
           WHERE owner_key(organization_id, '') = owner_key($1, '')
               AND (create_time, id_order(id)) > (coalesce($2::timestamptz, '-infinity'), id_order($3::uuid))
           ORDER BY create_time, id_order(id) LIMIT $4"#,
        organization_id.as_str(),
        from.and_then(|position| position.time),
        from.map_or(Uuid::nil(), |position| rows::uuid(position.id)),
        TOKENS_PER_PAGE
    )
    .fetch_all(&mut *transaction)
    .await?;
    let full = i64::try_from(rows.len()).is_ok_and(|found| found == TOKENS_PER_PAGE);
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
    let found = examine(transaction, organization_id, &ids, policy, now, counted).await?;
    Ok(Breaches { next: end, ..found }.fitting())
}

async fn examine(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    ids: &[Uuid],
    policy: &Policy,
    now: OffsetDateTime,
    counted: &mut CountedUsers,
) -> Result<Breaches, StoreError> {
    let rows = token_query!(
        query,
        r#"SELECT t.create_time AS "create_time!: Time", id_order(t.id) AS "id_order!",
               t.supersede_time AS "rotation?: Time",
               EXISTS (SELECT FROM tokens s
                   WHERE s.family_id = t.family_id AND s.generation > t.generation AND s.revoke_time IS NULL
                       AND (s.expire_time IS NULL OR s.expire_time > $2)) AS "superseded!","#,
        "(SELECT u.last_use_time FROM token_uses u WHERE u.token_id = t.id),
             (SELECT r.refusal FROM token_refusals r WHERE r.token_id = t.id), NULL::timestamptz",
        [r#"AS "token!: TokenRow" FROM tokens t
            WHERE t.id = ANY($1) AND t.revoke_time IS NULL AND (t.expire_time IS NULL OR t.expire_time > $2)
            ORDER BY t.create_time, id_order(t.id)"#],
        ids,
        now
    )
    .fetch_all(&mut *transaction)
    .await?;
    let mut tokens = Vec::with_capacity(rows.len());
    for row in rows {
        let place = TokenOrder { time: row.create_time.raw(), id_order: row.id_order };
        // Of a successor that cannot be read, only its existence counts.
        let rotation = row.rotation.map(|time| time.moment().unwrap_or(now));
        // A token that cannot be read must not prevent fixing the others.
        if let Ok(token) = Token::try_from(row.token) {
            let context = TokenContext { rotation, superseded: row.superseded, crowded_out: false };
            tokens.push((token, place, context));
        }
    }
    if policy.most_active_tokens.is_some() {
        count_users(
            transaction,
            organization_id,
            tokens.iter().map(|(token, ..)| token),
            policy,
            now,
            counted,
        )
        .await?;
    }
    let subject = tokens.iter().map(|(token, ..)| token).filter(|token| Policy::binds(token));
    let subject = subject.map(|token| (token.id, token.user_id.clone())).collect();
    let breaches = tokens.into_iter().filter_map(|(token, place, context)| {
        let crowded_out = counted.oldest_allowed(token.owner()).is_some_and(|oldest| place < oldest);
        policy.breach(token, TokenContext { crowded_out, ..context }, now)
    });
    Ok(Breaches { breaches: breaches.collect(), next: None, subject })
}

/// Finds the oldest token within the limit, counted from the newest, of each of these tokens' users who
/// is not yet in `counted`. Tokens that the policy itself ends do not count: the same conditions as in
/// `Policy::breach`.
async fn count_users(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    tokens: impl Iterator<Item = &Token>,
    policy: &Policy,
    now: OffsetDateTime,
    counted: &mut CountedUsers,
) -> Result<(), StoreError> {
    let new = tokens.filter(|token| counted.meet(token.owner()));
    let (users, kinds): (Vec<String>, Vec<String>) =
        new.map(|token| (token.user_id.as_str().to_owned(), token.owner_kind.word().to_owned())).unzip();
    if users.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"SELECT o.user_id AS "user_id!", o.owner_kind AS "owner_kind!", n.create_time AS "create_time!: Time", n.id_order AS "id_order!"
           FROM unnest($1::text[], $9::text[]) AS o (user_id, owner_kind) CROSS JOIN LATERAL (
               SELECT n.create_time, id_order(n.id) AS id_order FROM tokens n
               WHERE owner_key(n.organization_id, n.user_id) = owner_key($8, o.user_id)
                   -- Not by =, for which another index would do, whose order is not the one below.
                   AND n.organization_id IS NOT DISTINCT FROM $8 AND n.user_id IS NOT DISTINCT FROM o.user_id
                   AND n.owner_kind IS NOT DISTINCT FROM o.owner_kind
                   AND n.revoke_time IS NULL AND (n.expire_time IS NULL OR n.expire_time > $7)
                   AND NOT n.scopes @> ARRAY[$2::text]
                   AND CASE WHEN n.family_id IS NULL THEN true ELSE NOT EXISTS (SELECT FROM tokens s
                       WHERE s.family_id = n.family_id AND s.generation > n.generation AND s.revoke_time IS NULL
                       AND (s.expire_time IS NULL OR s.expire_time > $7)) END
                   AND NOT (n.expire_time IS NULL AND $4 AND NOT $5)
                   AND NOT n.create_time <= coalesce($6::timestamptz, '-infinity')
               ORDER BY n.create_time DESC, id_order(n.id) DESC OFFSET greatest($3::bigint - 1, 0) LIMIT 1) AS n"#,
        &users,
        ReservedScope::Root.word(),
        i64::from(policy.most_active_tokens.unwrap_or(0)),
        policy.expiration_required,
        policy.longest_lifetime.is_some(),
        policy.expires_created_before(now),
        now,
        organization_id.as_str(),
        &kinds
    )
    .fetch_all(transaction)
    .await?;
    for row in rows {
        counted.insert(
            (&row.user_id, &row.owner_kind),
            TokenOrder { time: row.create_time.raw(), id_order: row.id_order },
        );
    }
    Ok(())
}

fn position(breach: &Breach) -> Position {
    Position { time: Some(breach.token.create_time), id: breach.token.id }
}

fn reason(rule: Rule) -> Result<RevokeReason, StoreError> {
    let text = format!("policy: {}", rule.word());
    RevokeReason::parse(&text).map_err(|_| StoreError::Corrupt { table: "tokens", column: "revoke_reason" })
}

//! Codes with which a program of a person gets a token, once. Called by the console, where they are exchanged, and by the
//! purge. Knows only their hashes.

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::clock::ClockReading;
use super::columns::{Time, unreadable};
use super::locks::clock;
use super::sessions::SessionRow;
use super::{Store, StoreError};
use crate::clock::BootInstant;
use crate::domain::login::{Host, LoginRequest};
use crate::domain::session::{CODE_LIFETIME, LoginCode, MAX_CODES};
use crate::domain::{Scope, Scopes};
use crate::secret::CodeChallenge;

impl Store {
    /// Stores the code of a login that was allowed in this session, and ends its oldest ones beyond the limit.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn add_login_code(
        &self,
        code_hash: &[u8; 32],
        session_id: Uuid,
        (challenge, request): (&CodeChallenge, &LoginRequest),
    ) -> Result<(), StoreError> {
        let scopes: Vec<String> = request.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        self.retrying(async || {
            let mut transaction = self.begin().await?;
            let now = clock(&mut transaction).await?;
            sqlx::query!(
                "WITH surplus AS (
                     SELECT code_hash FROM login_codes WHERE session_id = $2
                     ORDER BY expire_time DESC OFFSET $8::bigint - 1
                 ), ended AS (
                     DELETE FROM login_codes USING surplus WHERE login_codes.code_hash = surplus.code_hash
                 )
                 INSERT INTO login_codes (code_hash, session_id, challenge, host, lifetime, scopes, expire_time)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                code_hash,
                session_id,
                challenge.as_bytes(),
                request.host.as_str(),
                request.lifetime.whole_seconds(),
                &scopes,
                now.saturating_add(CODE_LIFETIME),
                MAX_CODES
            )
            .execute(&mut transaction)
            .await?;
            transaction.commit().await
        })
        .await
    }

    /// Takes a code away, with its session, and the time to judge both by: the only statement that uses one. `None`:
    /// there is none, or its session has ended. Of several attempts at once, one gets it.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store. It may have been taken then.
    pub async fn take_login_code(
        &self,
        code_hash: &[u8; 32],
    ) -> Result<Option<(LoginCode, OffsetDateTime)>, StoreError> {
        let sent = BootInstant::now();
        self.within(async {
            let mut transaction = self.begin().await?;
            let taken = sqlx::query!(
                r#"WITH taken AS (DELETE FROM login_codes WHERE code_hash = $1 RETURNING *)
                   SELECT taken.challenge, taken.host, taken.lifetime, taken.scopes,
                       taken.expire_time AS "expire_time: Time", session.id, session.token_id,
                       session.open_time AS "open_time: Time", session.last_use_time AS "last_use_time: Time",
                       session.proof_time AS "proof_time: Time", session.by_link, session.address,
                       clock_timestamp() AS "now!: Time"
                   FROM taken JOIN console_sessions AS session
                       ON session.id = taken.session_id AND session.portal_user_id IS NULL"#,
                code_hash
            )
            .fetch_optional(&mut transaction)
            .await?;
            transaction.commit().await?;
            let Some(row) = taken else { return Ok(None) };
            let now = self.clock.accepted(ClockReading { sent, time: row.now.clock()? });
            let unreadable = |column| unreadable("login_codes", Some(row.id), column);
            let challenge: [u8; 32] = row.challenge.try_into().map_err(|_| unreadable("challenge"))?;
            let scopes: Result<Vec<_>, _> = row.scopes.iter().map(|text| Scope::parse(text)).collect();
            let request = LoginRequest {
                host: Host::parse(&row.host).map_err(|_| unreadable("host"))?,
                lifetime: Duration::seconds(row.lifetime),
                scopes: scopes.and_then(Scopes::new).map_err(|_| unreadable("scopes"))?,
            };
            let expire_time = row.expire_time.moment().ok_or_else(|| unreadable("expire_time"))?;
            let session = SessionRow {
                id: row.id,
                token_id: row.token_id,
                open_time: row.open_time,
                last_use_time: row.last_use_time,
                proof_time: row.proof_time,
                by_link: row.by_link,
                address: row.address,
                portal_organization_id: None,
                portal_user_id: None,
                portal_scopes: None,
                portal_expire_time: None,
            };
            let session = session.try_into()?;
            let challenge = CodeChallenge::from_bytes(challenge);
            Ok(Some((LoginCode { session, challenge, request, expire_time }, now)))
        })
        .await
    }

    /// Deletes codes that have expired. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn purge_login_codes(&self) -> Result<u64, StoreError> {
        let Some(now) = self.time_to_delete_by() else { return Ok(0) };
        self.within(async {
            let done = sqlx::query!("DELETE FROM login_codes WHERE expire_time <= $1", now)
                .execute(self.single()?)
                .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

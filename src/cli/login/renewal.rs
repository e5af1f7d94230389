//! The secret of a login for a command, replaced by a new one when it is due: the login's token rotates itself, and
//! expires as before. The old secret is accepted for an hour longer, so commands that run at the same time go on, and a
//! command that is killed in between loses nothing: the next one repeats its request, and gets the same secret.

use prost_types::Timestamp;
use secrecy::SecretString;
use time::OffsetDateTime;
use tokend_client::proto::{RotateTokenRequest, RotateTokenResponse};
use tokend_client::{Connection, ErrorKind, Repeatable};

use super::file::{Locked, LoginFile, StoredLogin};
use crate::cli::CommandError;
use crate::cli::client_error::ClientError;
use crate::cli::request_id::new_request_id;
use crate::clock;
use crate::config::Environment;

/// How long the old secret is accepted, in seconds.
const GRACE_SECONDS: i64 = 3600;

/// Returns the secret of the login at this address; `None`: nobody is logged in.
pub(in crate::cli) async fn secret(
    address: &str,
    connection: &Connection,
    environment: &Environment,
) -> Result<Option<SecretString>, CommandError> {
    let Some(file) = LoginFile::of(address, environment)? else { return Ok(None) };
    let Some(login) = file.read().map_err(ClientError::from)? else { return Ok(None) };
    if !login.is_due(clock::now()) {
        return Ok(Some(login.secret()));
    }
    // Another command that has the lock renews it.
    let Some(locked) = file.try_lock().map_err(ClientError::from)? else { return Ok(Some(login.secret())) };
    match locked.read().map_err(ClientError::from)? {
        None => Ok(None),
        Some(login) if !login.is_due(clock::now()) => Ok(Some(login.secret())),
        Some(login) => renewed(&locked, login, (address, connection)).await.map(Some),
    }
}

/// Replaces the secret, if the server does so; otherwise the present one goes on.
async fn renewed(
    locked: &Locked<'_>,
    mut login: StoredLogin,
    (address, connection): (&str, &Connection),
) -> Result<SecretString, CommandError> {
    let request_id = if let Some(request_id) = login.renewal.clone() {
        request_id
    } else {
        let request_id = new_request_id()?;
        login.renewal = Some(request_id.clone());
        // Before the request, so that it can be repeated if this command is killed.
        locked.write(&login).map_err(ClientError::from)?;
        request_id
    };
    let client = connection.clone().secret(login.secret()).open().map_err(ClientError::Connection)?;
    let message = RotateTokenRequest {
        token_id: login.token_id.clone(),
        grace_period: Some(prost_types::Duration { seconds: GRACE_SECONDS, nanos: 0 }),
        request_id,
        ..RotateTokenRequest::default()
    };
    let rotated = client
        .call(Repeatable::Yes, message, |mut raw, request| async move { raw.rotate_token(request).await });
    match rotated.await {
        Ok(RotateTokenResponse { token: Some(token), secret }) => {
            let previous_id = Some(std::mem::replace(&mut login.token_id, token.id));
            let (user_id, end) = (token.user_id, token.expire_time);
            let mut new = StoredLogin::new(
                locked.address(),
                (login.token_id.clone(), user_id),
                secret,
                end,
                clock::now(),
            );
            new.previous_id = previous_id;
            locked.write(&new).map_err(ClientError::from)?;
            Ok(new.secret())
        }
        Ok(_) => Err(ClientError::Incomplete("token").into()),
        Err(error) => match error.kind() {
            ErrorKind::Unauthenticated => Err(ClientError::LoginEnded { address: address.to_owned() }.into()),
            // A policy that allows no such grace, or a copy of this file that was renewed elsewhere.
            ErrorKind::FailedPrecondition | ErrorKind::PermissionDenied | ErrorKind::AlreadyExists => {
                login.renewal = None;
                login.renew_time = login.expire_time;
                locked.write(&login).map_err(ClientError::from)?;
                Ok(login.secret())
            }
            _ => Ok(login.secret()),
        },
    }
}

impl StoredLogin {
    /// Returns the login with a secret that was made at `now`: it is renewed after a quarter of the time that is left.
    pub(super) fn new(
        address: &str,
        (token_id, user_id): (String, String),
        secret: String,
        end: Option<Timestamp>,
        now: OffsetDateTime,
    ) -> Self {
        let now = now.unix_timestamp();
        let expire_time = end.map_or(now, |end| end.seconds);
        let renew_time = now.saturating_add(expire_time.saturating_sub(now) / 4);
        let address = address.to_owned();
        Self { address, token_id, user_id, secret, expire_time, renew_time, previous_id: None, renewal: None }
    }

    pub(super) fn secret(&self) -> SecretString {
        self.secret.clone().into()
    }

    /// Returns whether it has to be renewed at `now`.
    fn is_due(&self, now: OffsetDateTime) -> bool {
        let now = now.unix_timestamp();
        self.renew_time <= now && now < self.expire_time
    }
}

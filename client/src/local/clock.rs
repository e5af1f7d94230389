//! Keeps the clock set: asks for the database's time, with a request that only the database can
//! answer, periodically and whenever the clock is found to be wrong. A task of the local verifier.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokend_core::boot_instant::BootInstant;
use tokend_core::domain::Scopes;
use tokend_core::secret::{Prefix, Secret, TokenId};
use zeroize::Zeroizing;

use super::Shared;
use super::freshness::DatabaseClock;
use crate::random;
use crate::retry::pause;
use crate::verification::{Consistency, VerifyRequest};

/// How often the clock is set. Drift is accounted for; this bounds its cost.
const INTERVAL: Duration = Duration::from_secs(10);

pub(super) async fn keep_set(shared: Arc<Shared>) {
    let client = shared.remote.client();
    let required_scopes = Scopes::default();
    let mut failures = 0;
    loop {
        // The caller's own secret; without one, a secret that belongs to no token.
        let known = client.current_secret().map(|known| known.secret.clone());
        let secret = known.unwrap_or_else(|| unknown_secret(&shared.prefix));
        let request = VerifyRequest {
            secret: secret.expose_secret(),
            required_scopes: &required_scopes,
            client_ip: None,
            // The question is only what time it is.
            cost: 0,
            limit: None,
        };
        // Taken before it is sent: the returned time is read later.
        let (start, sent) = (shared.freshness.start(), BootInstant::now());
        let wait = match client.verify(&request, Consistency::Full).await {
            Ok(answer) => {
                failures = 0;
                if let Some(database_time) = answer.as_of {
                    shared.freshness.set_clock(DatabaseClock { sent, database_time, start });
                }
                INTERVAL
            }
            Err(error) => {
                failures += 1;
                shared.failed(
                    "the database's time is not available, so the server judges every secret",
                    &error,
                );
                pause(failures)
            }
        };
        let _ = tokio::time::timeout(wait, shared.freshness.doubted()).await;
    }
}

fn unknown_secret(prefix: &Prefix) -> SecretString {
    let bits = Zeroizing::new(random::random());
    Secret::derived(TokenId::from_bytes(random::random()), bits).render(prefix)
}

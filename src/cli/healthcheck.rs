//! `tokend healthcheck`: for container probes and scripts; no secret needed.

use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::{AddressFlag, Client, ClientError, ServerAddress};
use super::{CommandError, single_threaded};
use crate::config::Environment;

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn run(address: AddressFlag, environment: &Environment) -> Result<(), CommandError> {
    let address = ServerAddress::resolve(address, environment)?;
    single_threaded()?.block_on(async {
        let checked = tokio::time::timeout(TIMEOUT, check(&address.open()?)).await;
        checked.unwrap_or_else(|_| Err(ClientError::Silent(TIMEOUT).into()))
    })
}

/// Checks the server as a whole.
async fn check(client: &Client) -> Result<(), CommandError> {
    let mut health = HealthClient::new(client.inner().channel());
    let answer = health.check(HealthCheckRequest { service: String::new() }).await;
    match answer.map_err(|status| client.failed(status.into()))?.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(ClientError::NotServing(other.as_str_name()).into()),
    }
}

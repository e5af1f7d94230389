//! From flags, environment and file to where the console is served, and under which name. Called by `resolve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::ConfigError;
use super::declared::Sources;
use super::integrations::origins;
use super::network_values::ConsoleListen;
use super::settings::{ConsoleSettings, Storage};
use crate::api::origin::Origin;

/// Where the console is served beside a private Postgres.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50080);

/// Resolves where the console is served. `plaintext` says that it may leave the machine without TLS.
pub(super) fn console(
    sources: &mut Sources<'_>,
    storage: &Storage,
    (encrypted, plaintext): (bool, bool),
) -> Result<ConsoleSettings, ConfigError> {
    let listen = sources.console_listen()?.map_or_else(
        || Some(LISTEN).filter(|_| matches!(storage, Storage::Private { .. })),
        ConsoleListen::get,
    );
    let origin = sources.console_origin()?;
    ConfigError::demand(
        "--console-origin",
        origin.is_none() || listen.is_some(),
        "without --console-listen",
    )?;
    let embedders = sources.console_embed_origins()?;
    ConfigError::demand(
        "--console-embed-origins",
        embedders.is_none() || listen.is_some(),
        "without --console-listen",
    )?;
    let embedders = origins(embedders.as_deref(), "--console-embed-origins")?;
    let origin = origin.map(|text| Origin::parse(&text).map_err(ConfigError::ConsoleOrigin)).transpose()?;
    let Some(address) = listen else { return Ok(ConsoleSettings::default()) };
    let local = address.ip().to_canonical().is_loopback();
    if !local && !encrypted && !plaintext {
        return Err(ConfigError::PlaintextExposed(address));
    }
    match &origin {
        None if !local => return Err(ConfigError::ConsoleWithoutOrigin(address)),
        Some(origin) if origin.scheme() == "http" && (encrypted || !plaintext && !origin.is_loopback()) => {
            return Err(ConfigError::ConsoleOriginPlaintext);
        }
        _ => {}
    }
    let plain = origin.as_ref().is_some_and(|origin| origin.scheme() == "http" && !origin.is_loopback());
    if plain && !embedders.is_empty() {
        return Err(ConfigError::PrivatePostgresPlaintext);
    }
    Ok(ConsoleSettings { listen, origin, embedders })
}

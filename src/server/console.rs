//! Builds the console from what the other interfaces use. Called by `run` where its listener is open.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::ServerConfig;
use crate::api::console::{Console, Site, Streams};
use crate::api::http::integrations::Integrations;
use crate::auth::sessions::Sessions;
use crate::changefeed::hub::Hub;
use crate::secret::CurrentKeyring;

/// Returns the site that the console is behind this listener.
pub(super) fn site(config: &ServerConfig, listener: &TcpListener) -> Site {
    // A bound socket has an address.
    let port = listener.local_addr().map_or(0, |address| address.port());
    let site = Site::new(config.console_origin.as_ref(), config.tls.is_some(), port);
    site.embedded_by(&config.console_embedders)
}

pub(super) fn build(
    config: &ServerConfig,
    sessions: Arc<Sessions>,
    integrations: Arc<Integrations>,
    site: Site,
    (hub, keyring): (Arc<Hub>, Arc<CurrentKeyring>),
) -> Arc<Console> {
    Arc::new(Console {
        sessions,
        site,
        prefix: config.prefix.clone(),
        hub,
        keyring,
        streams: Streams::default(),
        integrations,
    })
}

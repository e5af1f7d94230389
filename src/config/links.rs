//! The rule for every connection that tokend opens: to another host only over TLS that verifies the
//! server, unless that connection is configured as insecure. Sockets and loopback are exempt.
//! Called by `sources` and `resolve`. Does not know what a connection is for or how it is opened.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokend_core::link::is_this_machine;
use tonic::codegen::http::Uri;

use super::ConfigError;

/// Accepts a connection to Postgres that stays on this machine, verifies the server, or is configured as
/// insecure.
pub(super) fn check_database(
    options: &PgConnectOptions,
    origin: &'static str,
    insecure: bool,
) -> Result<(), ConfigError> {
    let local = options.get_socket().is_some() || is_this_machine(options.get_host());
    let verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    if local || verified || insecure { Ok(()) } else { Err(ConfigError::DatabaseUnverified { origin }) }
}

/// Checks the address of a span collector: only scheme, host and port, since gRPC sets the rest itself.
pub(super) fn check_otlp_endpoint(text: &str, insecure: bool) -> Result<(), ConfigError> {
    let uri: Uri = text.parse().map_err(|_| ConfigError::OtlpEndpoint)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(ConfigError::OtlpEndpoint);
    };
    // User information would never be sent, and an invalid port would be replaced by another.
    let has_port =
        authority.port_u16().is_some_and(|port| port > 0) || authority.as_str() == authority.host();
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty() && has_port;
    if !plain || uri.path() != "/" || uri.query().is_some() {
        return Err(ConfigError::OtlpEndpoint);
    }
    match scheme {
        "https" => Ok(()),
        "http" if insecure || is_this_machine(authority.host()) => Ok(()),
        "http" => Err(ConfigError::OtlpPlaintext),
        _ => Err(ConfigError::OtlpEndpoint),
    }
}

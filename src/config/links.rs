//! The one rule for every link that tokend opens: to another host only over TLS that verifies who answers, unless the
//! configuration says for that link that it need not be. Sockets and loopback are free.
//!
//! Called by `sources` and `resolve`. What a link is for, and how it is opened, is not known here.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokend_core::link::is_this_machine;
use tonic::codegen::http::Uri;

use super::ConfigError;

/// Lets a way to Postgres pass that stays on this machine or verifies the server, or that was said to be insecure.
pub(super) fn check_database(
    options: &PgConnectOptions,
    origin: &'static str,
    insecure: bool,
) -> Result<(), ConfigError> {
    let local = options.get_socket().is_some() || is_this_machine(options.get_host());
    let verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    if local || verified || insecure { Ok(()) } else { Err(ConfigError::DatabaseUnverified { origin }) }
}

/// Lets the address of a collector of spans pass: scheme, host and port alone, since gRPC says the rest itself.
pub(super) fn check_otlp_endpoint(text: &str, insecure: bool) -> Result<(), ConfigError> {
    let uri: Uri = text.parse().map_err(|_| ConfigError::OtlpEndpoint)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(ConfigError::OtlpEndpoint);
    };
    // User information would never be sent, and a port that is none would be taken for another.
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

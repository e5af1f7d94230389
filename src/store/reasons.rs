//! Why the database does not respond, in fixed short texts that may be shown to anyone: the server's
//! own texts may contain names and addresses. Used by the errors of the store.

use std::io::ErrorKind;

use sqlx::Error;

use super::StoreError;

pub(super) const STANDBY: &str = "the database server is a standby, not the primary";

/// Prefixes of SQLSTATEs and their meanings; the first match counts.
const STATES: [(&str, &str); 10] = [
    ("28", "the database does not accept the password or the role"),
    ("3D", "the database does not exist"),
    ("42501", "the database role lacks a grant"),
    ("25006", "the database server is read-only: a standby, perhaps"),
    ("53300", "the database server has no connection left"),
    ("53", "the database server has no space left"),
    ("57P03", "the database server is starting up or shutting down"),
    ("57014", "the database did not answer in time"),
    ("57", "the database server ended the connection"),
    ("40", "the database aborted a transaction"),
];

impl StoreError {
    /// Returns a short fixed text, without any names, why there was no response.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Clock => "the database's clock is far off",
            Self::Starting => "waiting for the database",
            Self::DeadlineExceeded => "the database did not answer in time",
            Self::OtherServer => "the database server has changed",
            Self::Unconfirmed => "no standby has confirmed the change",
            Self::Unavailable(error) | Self::Refused(error) => reason(error),
            Self::Corrupt { .. } | Self::BeforeCommit(_) => "the database holds a value that cannot be read",
        }
    }
}

pub(super) fn reason(error: &Error) -> &'static str {
    match error {
        Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            let known = STATES.iter().find(|(state, _)| code.starts_with(state));
            known.map_or("the database refuses", |(_, reason)| reason)
        }
        Error::PoolTimedOut => "the database did not answer in time",
        // How the driver reports a connection that is closed right after its TLS request, or at its
        // start.
        Error::Protocol(text) if text.contains("SSLRequest") => PROXY,
        Error::Io(error)
            if matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ) =>
        {
            PROXY
        }
        Error::Configuration(_) => "the database password file cannot be read",
        Error::Tls(_) => "TLS to the database fails",
        _ => "the database cannot be reached",
    }
}

const PROXY: &str =
    "the connection is closed before Postgres answers: a proxy without a live server, perhaps";

/// Returns whether the server refused to authenticate this client.
pub(super) fn is_authentication(error: &Error) -> bool {
    // Class 28: invalid authorization specification.
    matches!(error, Error::Database(error) if error.code().is_some_and(|code| code.starts_with("28")))
}

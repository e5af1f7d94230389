//! Flags of serve for TLS and for the export of spans. A part of `flags`, with the same rules:
//! every value is optional, and the help texts are the manual.

#![expect(clippy::doc_markdown, reason = "these comments are help texts, shown as they stand")]

use std::path::PathBuf;

use clap::Args;

use super::values::SampleRatio;

/// How the listeners are secured.
#[derive(Args)]
pub(super) struct TlsFlags {
    /// The server's certificate and its intermediates, PEM, the server's own first. Serves TLS 1.3
    /// and 1.2; the files are read again when they change [env: TOKEND_TLS_CERTIFICATE]
    #[arg(long = "tls-certificate", value_name = "FILE", help_heading = "Serving")]
    pub(super) certificate: Option<PathBuf>,

    /// The certificate's private key, PEM; nobody but its owner may read it [env: TOKEND_TLS_KEY]
    #[arg(long = "tls-key", value_name = "FILE", help_heading = "Serving")]
    pub(super) key: Option<PathBuf>,

    /// CAs of client certificates, PEM. What a certificate's name allows stands in the --config
    /// file, as [[client-certificate]] with name (and its kind), scopes and organization
    /// [env: TOKEND_TLS_CLIENT_CA]
    #[arg(long = "tls-client-ca", value_name = "FILE", help_heading = "Serving")]
    pub(super) client_ca: Option<PathBuf>,

    /// Lists of revoked client certificates (CRLs), PEM, one of each CA that issues them. A certificate of a
    /// CA that has none here, or one past its end, is not accepted. Read again when they change, which ends
    /// the connections of those that have been revoked [env: TOKEND_TLS_CLIENT_CRL]
    #[arg(long = "tls-client-crl", value_name = "FILE", help_heading = "Serving")]
    pub(super) client_crl: Option<PathBuf>,
}

/// Where spans go, and which.
#[derive(Args)]
pub(super) struct TracingFlags {
    /// OpenTelemetry collector to export spans to over OTLP (gRPC), as https://HOST:PORT, on this machine
    /// also http://HOST:PORT: those that callers sample by their traceparent, and some of the rest. Its
    /// certificate must be of a CA that the system trusts, or one in the file that SSL_CERT_FILE names
    /// [env: TOKEND_OTLP_ENDPOINT] [default: none]
    #[arg(long, value_name = "URL", help_heading = "Logging")]
    pub(super) otlp_endpoint: Option<String>,

    /// Send spans to a collector on another host in plaintext [env: TOKEND_OTLP_INSECURE]
    #[arg(long, help_heading = "Logging")]
    pub(super) otlp_insecure: bool,

    /// What part of the calls that bring no traceparent is exported, 0 to 1
    /// [env: TOKEND_TRACE_SAMPLE_RATIO] [default: 0.01]
    #[arg(long, value_name = "RATIO", help_heading = "Logging")]
    pub(super) trace_sample_ratio: Option<SampleRatio>,
}

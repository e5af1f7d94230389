//! Flags of serve for TLS, for the export of spans and for the console. A part of `flags`, with the same rules:
//! every value is optional, and the help texts are the manual.

#![expect(clippy::doc_markdown, reason = "these comments are help texts, shown verbatim")]

use std::path::PathBuf;

use clap::Args;

use super::values::{ConsoleListen, SampleRatio};

/// How the listeners are secured.
#[derive(Args)]
pub(super) struct TlsFlags {
    /// The server's certificate, then its intermediates, PEM. Serves TLS 1.3 and 1.2; the files are read
    /// again when they change [env: TOKEND_TLS_CERTIFICATE]
    #[arg(long = "tls-certificate", value_name = "FILE", help_heading = "Serving")]
    pub(super) certificate: Option<PathBuf>,

    /// The certificate's private key, PEM; only its owner may read it [env: TOKEND_TLS_KEY]
    #[arg(long = "tls-key", value_name = "FILE", help_heading = "Serving")]
    pub(super) key: Option<PathBuf>,

    /// CAs of client certificates, PEM. The --config file says what a certificate's name allows, as
    /// [[client-certificate]] with name (and its kind), scopes and organization [env: TOKEND_TLS_CLIENT_CA]
    #[arg(long = "tls-client-ca", value_name = "FILE", help_heading = "Serving")]
    pub(super) client_ca: Option<PathBuf>,

    /// Lists of revoked client certificates (CRLs), PEM, one for each CA that issues client certificates. A
    /// certificate is refused if its CA has no list here or an expired one. Read again when they change,
    /// which ends the connections whose certificates are revoked [env: TOKEND_TLS_CLIENT_CRL]
    #[arg(long = "tls-client-crl", value_name = "FILE", help_heading = "Serving")]
    pub(super) client_crl: Option<PathBuf>,
}

/// Where spans go, and which.
#[derive(Args)]
pub(super) struct TracingFlags {
    /// OpenTelemetry collector to export spans to over OTLP (gRPC), as https://HOST:PORT, on this machine
    /// also http://HOST:PORT. Exports the spans that callers sample with their traceparent, and some of the
    /// others. The collector's certificate must be from a CA that the system trusts, or from one in the file
    /// that SSL_CERT_FILE names [env: TOKEND_OTLP_ENDPOINT] [default: none]
    #[arg(long, value_name = "URL", help_heading = "Logging")]
    pub(super) otlp_endpoint: Option<String>,

    /// Send spans to a collector on another host in plaintext [env: TOKEND_OTLP_INSECURE]
    #[arg(long, help_heading = "Logging")]
    pub(super) otlp_insecure: bool,

    /// The part of the calls without a traceparent that is exported, 0 to 1 [env: TOKEND_TRACE_SAMPLE_RATIO]
    /// [default: 0.01]
    #[arg(long, value_name = "RATIO", help_heading = "Logging")]
    pub(super) trace_sample_ratio: Option<SampleRatio>,
}

/// Flags of the console.
#[derive(Args)]
pub(super) struct ConsoleFlags {
    /// Address to serve the console on, the pages for people, as IP:PORT, or off; with TLS if gRPC has it. If the port is
    /// taken, the rest is served without it [env: TOKEND_CONSOLE_LISTEN] [default: 127.0.0.1:50080 with the private
    /// Postgres, else off]
    #[arg(long, value_name = "IP:PORT", help_heading = "Console")]
    pub(super) console_listen: Option<ConsoleListen>,

    /// Origin by which browsers reach the console, exactly as they send it, such as https://tokens.example.org; it answers
    /// by no other name [env: TOKEND_CONSOLE_ORIGIN] [default: the names of loopback]
    #[arg(long, value_name = "ORIGIN", help_heading = "Console")]
    pub(super) console_origin: Option<String>,
}

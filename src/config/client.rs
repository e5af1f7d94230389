//! The settings of the commands that call a running tokend: each is declared here, once. They are in no file.

#![expect(clippy::doc_markdown, reason = "these comments are help texts, shown verbatim")]

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde::Deserialize;

use super::ConfigError;
use super::precedence::Precedence;
use super::setting::{Commands, Setting, Values, relative_to, settings};
use super::values::Switch;

/// The settings of one such command: from its flags and the environment.
pub(super) type Sources<'a> = Precedence<'a, PartialSettings>;

settings! {
    Client "" {
        /// Address of a running tokend, http://HOST:PORT or https://HOST:PORT
        address: String as "URL" = "http://127.0.0.1:50051";

        /// CA of the server's certificate, PEM, in addition to those that the system trusts
        ca: PathBuf as "FILE";

        /// Connect to a tokend on another host without TLS: anyone who can read the network in between sees
        /// the caller's secret
        address_insecure: Switch;
    }

    Variable "" {
        /// The caller's secret; healthcheck needs none
        secret: String as "SECRET";

        /// File with the caller's secret on its first line, if TOKEND_SECRET is not set; only its owner may
        /// read it
        secret_file: PathBuf as "FILE";
    }
}

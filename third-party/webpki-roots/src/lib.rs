//! No root certificates. sqlx has no way to be told to trust one authority alone: to the one that is named it adds all
//! that the crate of this name has, Mozilla's. Anybody gets a certificate of one of those, for a name of their own, and
//! `sslmode=verify-ca` looks at no name. `Cargo.toml` puts this crate in the place of that one.

use pki_types::TrustAnchor;

/// Nobody.
pub const TLS_SERVER_ROOTS: &[TrustAnchor<'static>] = &[];

//! The flags that set what the tokens that a token issues may have. Used by `tokend token create` and `tokend token update`.

use clap::Args;
use tokend_client::proto::Grant;

use crate::cli::times::parse_ttl;

/// The names of the flags below, for the conditions of other flags.
pub(super) const GRANT_FLAGS: [&str; 7] = [
    "grant_scope",
    "grant_user",
    "grant_user_prefix",
    "grant_all_users",
    "grant_lifetime",
    "grant_cidr",
    "grant_self",
];

/// What the tokens that it issues may have at most; without any of these, all that its scopes allow.
#[derive(Args)]
#[group(skip)]
#[expect(clippy::struct_field_names, reason = "they are the names of the flags")]
pub(super) struct GrantFlags {
    /// Scope of tokens that a token with tokend:write or tokend:self may issue, such as orders:*; may be repeated [default with
    /// another --grant flag: its own]
    #[arg(long, value_name = "SCOPE")]
    grant_scope: Vec<String>,

    /// User for whom a token with tokend:write may issue tokens; may be repeated [default with another --grant flag: its
    /// own user]
    #[arg(long, value_name = "USER_ID", conflicts_with = "grant_all_users")]
    grant_user: Vec<String>,

    /// Beginning of the ids of such users; may be repeated
    #[arg(long, value_name = "PREFIX", conflicts_with = "grant_all_users")]
    grant_user_prefix: Vec<String>,

    /// Let it issue tokens for every user
    #[arg(long)]
    grant_all_users: bool,

    /// Longest lifetime of a token that it issues, such as 90d [default with another --grant flag: until its own
    /// expiration]
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    grant_lifetime: Option<prost_types::Duration>,

    /// Network that contains those of each token that it issues; may be repeated [default with another --grant flag:
    /// its own]
    #[arg(long, value_name = "NETWORK")]
    grant_cidr: Vec<String>,

    /// Let a token with tokend:write issue tokens with tokend:self
    #[arg(long)]
    grant_self: bool,
}

impl GrantFlags {
    /// Returns the grant; `None` without any of the flags.
    pub(super) fn chosen(self) -> Option<Grant> {
        let grant = Grant {
            scopes: self.grant_scope,
            users: self.grant_user,
            user_prefixes: self.grant_user_prefix,
            all_users: self.grant_all_users,
            longest_lifetime: self.grant_lifetime,
            networks: self.grant_cidr,
            may_grant_self: self.grant_self,
        };
        Some(grant).filter(|grant| *grant != Grant::default())
    }
}

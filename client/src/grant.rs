//! A token's grant as a message, and back. Used by the conversion of tokens and by requests.

use prost_types::Duration;
use tokend_core::domain::grant::{Grant, Users};
use tokend_core::domain::{FieldError, Network, Networks, Scope, Scopes, UserId, UserPrefix};

use crate::proto;

impl From<&Grant> for proto::Grant {
    fn from(grant: &Grant) -> Self {
        let seconds = |longest: time::Duration| Duration { seconds: longest.whole_seconds(), nanos: 0 };
        Self {
            scopes: grant.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            users: grant.users.ids().map(str::to_owned).collect(),
            user_prefixes: grant.users.prefixes().map(str::to_owned).collect(),
            all_users: grant.users.is_all(),
            longest_lifetime: grant.longest_lifetime.map(seconds),
            networks: grant.networks.iter().map(ToString::to_string).collect(),
            may_grant_self: grant.may_grant_self,
        }
    }
}

/// Converts a grant.
pub(crate) fn grant(message: proto::Grant) -> Result<Grant, FieldError> {
    // Without `..`, so that this does not compile while a field is missing below.
    let proto::Grant { scopes, users, user_prefixes, all_users, longest_lifetime, networks, may_grant_self } =
        message;
    let ids = users.iter().map(|user| UserId::parse(user)).collect::<Result<_, _>>()?;
    let prefixes = user_prefixes.iter().map(|prefix| UserPrefix::parse(prefix)).collect::<Result<_, _>>()?;
    let networks = networks.iter().map(|network| Network::parse(network)).collect::<Result<_, _>>()?;
    let scopes = scopes.iter().map(|scope| Scope::parse(scope)).collect::<Result<_, _>>()?;
    Ok(Grant {
        scopes: Scopes::new(scopes)?,
        users: Users::new(ids, prefixes, all_users)?,
        longest_lifetime: longest_lifetime.map(|longest| time::Duration::seconds(longest.seconds)),
        networks: Networks::new(networks)?,
        may_grant_self,
    })
}

//! The column of a token's grant, and its conversion to the domain type and back. Used by the row of a token, and where
//! one is written.

use serde::{Deserialize, Serialize};
use time::Duration;

use crate::domain::grant::{Grant, Users};
use crate::domain::{FieldError, Network, Networks, Scope, Scopes, UserId, UserPrefix};

/// A grant as the column has it; what is not set is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GrantColumn {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user_prefixes: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all_users: bool,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_lifetime: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    may_grant_self: bool,
}

impl From<&Grant> for GrantColumn {
    fn from(grant: &Grant) -> Self {
        Self {
            scopes: grant.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            users: grant.users.ids().map(str::to_owned).collect(),
            user_prefixes: grant.users.prefixes().map(str::to_owned).collect(),
            all_users: grant.users.is_all(),
            longest_lifetime: grant.longest_lifetime.map(Duration::whole_seconds),
            networks: grant.networks.iter().map(ToString::to_string).collect(),
            may_grant_self: grant.may_grant_self,
        }
    }
}

impl TryFrom<GrantColumn> for Grant {
    type Error = FieldError;

    fn try_from(column: GrantColumn) -> Result<Self, FieldError> {
        fn parsed<T>(
            texts: &[String],
            parse: fn(&str) -> Result<T, FieldError>,
        ) -> Result<Vec<T>, FieldError> {
            texts.iter().map(|text| parse(text)).collect()
        }
        let users = parsed(&column.users, UserId::parse)?;
        let prefixes = parsed(&column.user_prefixes, UserPrefix::parse)?;
        let grant = Self {
            scopes: Scopes::new(parsed(&column.scopes, Scope::parse)?)?,
            users: Users::new(users, prefixes, column.all_users)?,
            longest_lifetime: column.longest_lifetime.map(Duration::seconds),
            networks: Networks::new(parsed(&column.networks, Network::parse)?)?,
            may_grant_self: column.may_grant_self,
        };
        grant.check()?;
        Ok(grant)
    }
}

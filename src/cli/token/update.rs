//! `tokend token update`: changes the fields named on the command line, and nothing else.

use clap::Args;
use prost_types::{FieldMask, Timestamp};
use tokend_client::Repeatable;
use tokend_client::proto::UpdateTokenRequest;
use tokend_client::proto::update_token_request::Expiration;

use super::create::{labels, parse_label};
use super::get::show;
use super::grant::{GRANT_FLAGS, GrantFlags};
use crate::cli::CommandError;
use crate::cli::arguments::parse_token_id;
use crate::cli::client::{AddressFlag, Client, ClientError};
use crate::cli::times::{parse_time, parse_ttl};
use crate::config::Environment;

/// Flags of `tokend token update`.
#[derive(Args)]
pub(crate) struct UpdateFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Id of the token: the 22 characters that follow `tokd_` in its secret
    #[arg(value_parser = parse_token_id)]
    token_id: String,

    #[command(flatten)]
    changes: ChangeFlags,

    /// Change it even if no active root token is left
    #[arg(long)]
    force: bool,

    /// Print the token as one JSON object
    #[arg(long)]
    json: bool,
}

/// The flags below, one of which is required, besides those of a grant.
const CHANGES: [&str; 13] = [
    "name",
    "scopes",
    "no_scopes",
    "labels",
    "no_labels",
    "allowed_cidrs",
    "no_cidrs",
    "expire_time",
    "ttl",
    "no_expiration",
    "no_grant",
    "plan",
    "no_plan",
];

/// The changes: at least one.
#[derive(Args)]
// Named here, because flags that are declared elsewhere would leave the group without members.
#[group(required = true, multiple = true, args = CHANGES.into_iter().chain(GRANT_FLAGS))]
#[expect(clippy::struct_excessive_bools, reason = "flags are")]
struct ChangeFlags {
    /// New name
    #[arg(long)]
    name: Option<String>,

    /// New scope, which replaces all present ones; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", conflicts_with = "no_scopes")]
    scopes: Vec<String>,

    /// Remove all scopes
    #[arg(long)]
    no_scopes: bool,

    /// New label, which replaces all present ones; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label, conflicts_with = "no_labels")]
    labels: Vec<(String, String)>,

    /// Remove all labels
    #[arg(long)]
    no_labels: bool,

    /// Network that the token may be used from, which replaces all present ones; may be repeated
    #[arg(long = "cidr", value_name = "NETWORK", conflicts_with = "no_cidrs")]
    allowed_cidrs: Vec<String>,

    /// Let the token be used from any network
    #[arg(long)]
    no_cidrs: bool,

    /// Time from which the token is refused, RFC 3339, such as 2030-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with_all = ["ttl", "no_expiration"])]
    expire_time: Option<Timestamp>,

    /// How long the token is accepted from now on, such as 30d or 12h
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl, conflicts_with = "no_expiration")]
    ttl: Option<prost_types::Duration>,

    /// The token never expires
    #[arg(long)]
    no_expiration: bool,

    #[command(flatten)]
    grant: GrantFlags,

    /// Let the token issue all that its scopes allow
    #[arg(long, conflicts_with_all = GRANT_FLAGS)]
    no_grant: bool,

    /// New plan, whose limits the token gets
    #[arg(long, value_name = "PLAN", conflicts_with = "no_plan")]
    plan: Option<String>,

    /// Remove the plan: the token has no limits
    #[arg(long)]
    no_plan: bool,
}

pub(super) async fn run(flags: UpdateFlags, environment: &Environment) -> Result<(), CommandError> {
    let UpdateFlags { address, token_id, changes, force, json } = flags;
    let client = Client::open(address, environment).await?;
    let message = UpdateTokenRequest { force, ..changes.request(token_id)? };
    let answer = client
        .call(Repeatable::No, message, |mut raw, request| async move { raw.update_token(request).await });
    show(&answer.await?.token.ok_or(ClientError::Incomplete("token"))?, json)
}

impl ChangeFlags {
    fn request(self, token_id: String) -> Result<UpdateTokenRequest, CommandError> {
        let expiration = self
            .expire_time
            .map(Expiration::ExpireTime)
            .or(self.ttl.map(Expiration::Ttl))
            .or(self.no_expiration.then_some(Expiration::NoExpiration(true)));
        let grant = self.grant.chosen();
        let named = [
            ("name", self.name.is_some()),
            ("scopes", self.no_scopes || !self.scopes.is_empty()),
            ("labels", self.no_labels || !self.labels.is_empty()),
            ("allowed_cidrs", self.no_cidrs || !self.allowed_cidrs.is_empty()),
            ("expiration", expiration.is_some()),
            ("grant", self.no_grant || grant.is_some()),
            ("plan", self.no_plan || self.plan.is_some()),
        ];
        let paths = named.into_iter().filter(|(_, named)| *named).map(|(path, _)| path.to_owned());
        Ok(UpdateTokenRequest {
            token_id,
            name: self.name.unwrap_or_default(),
            labels: labels(self.labels)?,
            scopes: self.scopes,
            expiration,
            allowed_cidrs: self.allowed_cidrs,
            grant,
            plan: self.plan.unwrap_or_default(),
            update_mask: Some(FieldMask { paths: paths.collect() }),
            ..UpdateTokenRequest::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: UpdateFlags,
    }

    fn parse(more: &[&str]) -> Option<UpdateTokenRequest> {
        let line = ["update", "some-id"];
        let line = Line::try_parse_from(line.iter().chain(more)).ok()?;
        line.flags.changes.request(line.flags.token_id).ok()
    }

    #[test]
    fn the_update_mask_names_the_fields_of_the_command_line() {
        let request = parse(&["--name", "n", "--no-scopes", "--ttl", "1d"]).unwrap();

        assert_eq!(request.update_mask.unwrap().paths, ["name", "scopes", "expiration"]);
        assert_eq!((&*request.name, request.scopes.len()), ("n", 0));
        assert!(matches!(request.expiration, Some(Expiration::Ttl(_))));
    }

    #[test]
    fn a_grant_is_replaced_as_a_whole_or_removed() {
        let request = parse(&["--grant-user", "ada", "--grant-lifetime", "90d"]).unwrap();
        assert_eq!(request.update_mask.unwrap().paths, ["grant"]);
        let grant = request.grant.unwrap();
        assert_eq!((grant.users, grant.all_users), (vec!["ada".to_owned()], false));
        assert_eq!(grant.longest_lifetime.unwrap().seconds, 90 * 86_400);
        let request = parse(&["--no-grant"]).unwrap();
        assert_eq!((request.update_mask.unwrap().paths, request.grant), (vec!["grant".to_owned()], None));
    }

    #[test]
    fn a_plan_is_replaced_or_removed() {
        for (line, plan) in [(&["--plan", "free"][..], "free"), (&["--no-plan"], "")] {
            let request = parse(line).unwrap();
            assert_eq!((&*request.update_mask.unwrap().paths[0], &*request.plan), ("plan", plan));
        }
        assert!(parse(&["--plan", "free", "--no-plan"]).is_none());
    }

    #[test]
    fn an_update_without_changes_or_with_conflicting_ones_is_refused() {
        assert!(parse(&[]).is_none() && parse(&["--json"]).is_none());
        assert!(parse(&["--scope", "a", "--no-scopes"]).is_none());
        assert!(parse(&["--ttl", "1d", "--no-expiration"]).is_none());
        assert!(parse(&["--label", "a=1", "--label", "b=1"]).is_some());
        assert!(parse(&["--label", "a=1", "--label", "a=2"]).is_none());
        assert!(parse(&["--no-grant", "--grant-scope", "a"]).is_none());
    }
}

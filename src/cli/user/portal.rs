//! `tokend user portal` and `tokend user revoke-portal`: opens the console for a user, and ends that. The link is printed
//! and nowhere else kept.

use clap::Args;
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::{
    CreatePortalSessionRequest, CreatePortalSessionResponse, RevokePortalSessionsRequest,
};

use crate::cli::CommandError;
use crate::cli::client::{AddressFlag, Client};
use crate::cli::output::{print, print_json, quoted, remark, rfc3339};
use crate::cli::times::parse_ttl;
use crate::config::Environment;

/// Flags of `tokend user portal`.
#[derive(Args)]
pub(crate) struct PortalFlags {
    #[command(flatten)]
    person: PersonFlags,

    /// Scope of tokens that may be issued in the session, such as reports:read or reports:*; may be repeated. Without one, only
    /// tokens without scopes are created
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,

    /// How long the session lasts, at most 15m [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    ttl: Option<prost_types::Duration>,

    /// Print the response as one JSON object
    #[arg(long)]
    json: bool,
}

/// Flags of `tokend user revoke-portal`.
#[derive(Args)]
pub(crate) struct RevokePortalFlags {
    #[command(flatten)]
    person: PersonFlags,

    /// Print the response as one JSON object
    #[arg(long)]
    json: bool,
}

/// The person that a command is about.
#[derive(Args)]
struct PersonFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// The user, a person
    user_id: String,

    /// Organization of the user [default: the caller's own; for a root caller: default]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_expire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_expire_time: Option<String>,
}

/// A 64-bit number is a string in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RevokedJson {
    revoked_count: String,
}

pub(super) async fn create(flags: PortalFlags, environment: &Environment) -> Result<(), CommandError> {
    let PortalFlags { person, scopes, ttl, json } = flags;
    let client = Client::open(person.address, environment).await?;
    let (organization_id, user_id) = (person.organization, person.user_id);
    let message = CreatePortalSessionRequest { organization_id, user_id, scopes, ttl };
    // A repeat makes another link, and the first one expires unused.
    let answer = client.call(Repeatable::Yes, message, |mut raw, request| async move {
        raw.create_portal_session(request).await
    });
    let CreatePortalSessionResponse { url, link_expire_time, session_expire_time } = answer.await?;
    let session_expire_time = session_expire_time.map(rfc3339);
    if json {
        let link_expire_time = link_expire_time.map(rfc3339);
        return print_json(&[LinkJson { url: &url, link_expire_time, session_expire_time }]);
    }
    print(&format!("{url}\n"))?;
    let end = session_expire_time.map(|end| format!("; the session ends at {end}")).unwrap_or_default();
    remark(&format!("it opens once, within a minute{end}; give it to the user alone\n"));
    Ok(())
}

pub(super) async fn revoke(flags: RevokePortalFlags, environment: &Environment) -> Result<(), CommandError> {
    let RevokePortalFlags { person, json } = flags;
    let client = Client::open(person.address, environment).await?;
    let message =
        RevokePortalSessionsRequest { organization_id: person.organization, user_id: person.user_id.clone() };
    // Not retried automatically: a repeat would count 0.
    let answer = client.call(Repeatable::No, message, |mut raw, request| async move {
        raw.revoke_portal_sessions(request).await
    });
    let count = answer.await?.revoked_count;
    if json {
        return print_json(&[RevokedJson { revoked_count: count.to_string() }]);
    }
    print(&format!("ended {count} portal sessions and unused links of {}\n", quoted(&person.user_id)))
}

//! `tokend user list`: follows the pages to the end or to the limit.

use std::num::NonZeroU32;

use clap::Args;
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::{ListUsersRequest, OwnerKind, User};

use crate::cli::CommandError;
use crate::cli::client::{AddressFlag, Client};
use crate::cli::output::{cell, print, print_json, remark, rfc3339, table, to_the_second};
use crate::cli::owner_kind::KindFlag;
use crate::config::Environment;

/// The most users in one page of the server.
const LARGEST_PAGE: usize = 1000;

/// Flags of `tokend user list`.
#[derive(Args)]
pub(crate) struct ListFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Users of this organization only [default: the caller's own; for a root caller: all]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// Persons only, or service accounts only
    #[arg(long)]
    kind: Option<KindFlag>,

    /// Disabled ones only
    #[arg(long)]
    disabled: bool,

    /// The most users to list; if there are more, a line on standard error says so
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    limit: NonZeroU32,

    /// Print each user as a JSON object on its own line
    #[arg(long)]
    json: bool,
}

/// A user as JSON; a 64-bit number is a string there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserJson<'a> {
    organization_id: &'a str,
    user_id: &'a str,
    owner_kind: &'static str,
    active_count: String,
    token_count: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_use_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_time: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    disabled_by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    disable_reason: &'a str,
}

impl<'a> From<&'a User> for UserJson<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            organization_id: &user.organization_id,
            user_id: &user.user_id,
            owner_kind: user.owner_kind().as_str_name(),
            active_count: user.active_count.to_string(),
            token_count: user.token_count.to_string(),
            last_use_time: user.last_use_time.map(rfc3339),
            disable_time: user.disable_time.map(rfc3339),
            disabled_by: &user.disabled_by,
            disable_reason: &user.disable_reason,
        }
    }
}

pub(super) async fn run(flags: ListFlags, environment: &Environment) -> Result<(), CommandError> {
    let organizations = flags.organization.is_empty();
    let client = Client::open(flags.address, environment).await?;
    let limit = usize::try_from(flags.limit.get()).unwrap_or(usize::MAX);
    let mut message = ListUsersRequest {
        organization_id: flags.organization,
        owner_kind: flags.kind.map_or(OwnerKind::Unspecified, OwnerKind::from).into(),
        only_disabled: flags.disabled,
        ..ListUsersRequest::default()
    };
    let (mut rows, mut listed) = (Vec::new(), 0);
    let more = loop {
        message.page_size = i32::try_from(LARGEST_PAGE.min(limit - listed)).unwrap_or(i32::MAX);
        let call = client.call(Repeatable::Yes, message.clone(), |mut raw, request| async move {
            raw.list_users(request).await
        });
        let page = call.await?;
        listed += page.users.len();
        if flags.json {
            print_json(&page.users.iter().map(UserJson::from).collect::<Vec<_>>())?;
        } else {
            rows.extend(page.users.iter().map(|user| row(user, organizations)));
        }
        message.page_token = page.next_page_token;
        if message.page_token.is_empty() || listed >= limit {
            break !message.page_token.is_empty();
        }
    };
    if !flags.json {
        let organization = organizations.then_some("ORGANIZATION");
        let rest = ["USER", "KIND", "ACTIVE", "TOKENS", "LAST USE", "DISABLED", "REASON"];
        print(&table(&organization.into_iter().chain(rest).collect::<Vec<_>>(), rows))?;
    }
    if more {
        remark(&format!("there are more than these {listed}: raise --limit\n"));
    }
    Ok(())
}

fn row(user: &User, organizations: bool) -> Vec<String> {
    let mut row = Vec::new();
    row.extend(organizations.then(|| cell(&user.organization_id)));
    row.extend([
        cell(&user.user_id),
        user.owner_kind().as_str_name().trim_start_matches("OWNER_KIND_").to_lowercase(),
        user.active_count.to_string(),
        user.token_count.to_string(),
        user.last_use_time.map_or_else(|| "never".to_owned(), to_the_second),
        user.disable_time.map_or_else(|| "-".to_owned(), to_the_second),
        cell(&user.disable_reason),
    ]);
    row
}

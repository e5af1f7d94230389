//! `tokend user list`: follows the pages to the end or to the limit.

use std::num::NonZeroU32;

use clap::Args;
use tokend_client::Repeatable;
use tokend_client::proto::{ListUsersRequest, OwnerKind, User};

use crate::api::message_json::{ALWAYS_OF_USER, MessageJson};
use crate::cli::CommandError;
use crate::cli::client::{AddressFlag, Client};
use crate::cli::output::{cell, print, print_json, remark, table, to_the_second};
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
            let json = page.users.iter().map(|user| MessageJson::new("User", user, &ALWAYS_OF_USER));
            print_json(&json.collect::<Vec<_>>())?;
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

//! `tokend token list`: follows the pages to the end or to the limit.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use clap::{Args, ValueEnum};
use prost_types::Timestamp;
use tokend_client::Repeatable;
use tokend_client::proto::{ListTokensRequest, OwnerKind, Token, TokenState};

use crate::cli::CommandError;
use crate::cli::client::{AddressFlag, Client};
use crate::cli::output::{cell, print, print_json, remark, table, to_the_second};
use crate::cli::owner_kind::KindFlag;
use crate::cli::times::{parse_future, parse_past};
use crate::cli::token_fields::{TokenJson, expires, state_word};
use crate::config::Environment;

/// The most tokens in one page of the server.
const LARGEST_PAGE: usize = 1000;

/// Flags of `tokend token list`.
#[derive(Args)]
pub(crate) struct ListFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Tokens of this organization only [default: the caller's own; for a root caller: all]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// Tokens of this user only
    #[arg(long, value_name = "USER_ID", default_value = "", hide_default_value = true)]
    user: String,

    /// Tokens of persons only, or of service accounts only
    #[arg(long, value_name = "KIND")]
    owner_kind: Option<KindFlag>,

    /// Tokens in this state only; may be repeated
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<StateFlag>,

    /// Tokens created at this time or later, RFC 3339 or how long ago, such as 7d
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    created_after: Option<Timestamp>,

    /// Tokens created before this time, RFC 3339 or how long ago
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    created_before: Option<Timestamp>,

    /// Tokens that expire before this time, RFC 3339 or how far ahead, such as 30d
    #[arg(long, value_name = "TIME", value_parser = parse_future)]
    expires_before: Option<Timestamp>,

    /// Tokens created before this time and not used since, RFC 3339 or how long ago, such as 90d
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    unused_since: Option<Timestamp>,

    /// Tokens that were refused at this time or later although their secret was right, RFC 3339 or how long ago, such as 7d
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    refused_after: Option<Timestamp>,

    /// Tokens that were never used
    #[arg(long)]
    never_used: bool,

    /// Tokens with this text in their name
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    name_contains: String,

    /// The order: `create_time desc`, newest first, or `expire_time`, soonest first
    #[arg(long, value_name = "ORDER", default_value = "create_time desc")]
    order_by: String,

    /// The most tokens to list; if there are more, a line on standard error says so
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    limit: NonZeroU32,

    /// Also show each token's last use, scopes, networks and labels
    #[arg(long, conflicts_with = "json")]
    wide: bool,

    /// Print each token as a JSON object on its own line
    #[arg(long)]
    json: bool,
}

/// A state to list.
#[derive(Clone, Copy, ValueEnum)]
enum StateFlag {
    Active,
    Expired,
    Revoked,
    Disabled,
}

impl From<StateFlag> for TokenState {
    fn from(state: StateFlag) -> Self {
        match state {
            StateFlag::Active => Self::Active,
            StateFlag::Expired => Self::Expired,
            StateFlag::Revoked => Self::Revoked,
            StateFlag::Disabled => Self::Disabled,
        }
    }
}

pub(super) async fn run(flags: ListFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let limit = usize::try_from(flags.limit.get()).unwrap_or(usize::MAX);
    let columns = Columns { organization: flags.organization.is_empty(), wide: flags.wide };
    let mut states = flags.states.into_iter();
    let mut message = ListTokensRequest {
        organization_id: flags.organization,
        user_id: flags.user,
        owner_kind: flags.owner_kind.map_or(OwnerKind::Unspecified, OwnerKind::from).into(),
        states: states.by_ref().map(|s| TokenState::from(s).into()).collect(),
        created_after: flags.created_after,
        created_before: flags.created_before,
        expires_before: flags.expires_before,
        unused_since: flags.unused_since,
        refused_after: flags.refused_after,
        never_used: flags.never_used,
        name_contains: flags.name_contains,
        order_by: flags.order_by,
        ..ListTokensRequest::default()
    };
    let mut rows = Vec::new();
    let mut listed = 0;
    let more = loop {
        let wanted = LARGEST_PAGE.min(limit - listed);
        message.page_size = i32::try_from(wanted).unwrap_or(i32::MAX);
        let call = client.call(Repeatable::Yes, message.clone(), |mut raw, request| async move {
            raw.list_tokens(request).await
        });
        let page = call.await?;
        listed += page.tokens.len();
        if flags.json {
            print_json(&page.tokens.iter().map(TokenJson::from).collect::<Vec<_>>())?;
        } else {
            rows.extend(page.tokens.iter().map(|token| columns.row(token)));
        }
        message.page_token = page.next_page_token;
        if message.page_token.is_empty() || listed >= limit {
            break !message.page_token.is_empty();
        }
    };
    if !flags.json {
        print(&table(&columns.heading(), rows))?;
    }
    if more {
        remark(&format!("there are more than these {listed}: raise --limit\n"));
    }
    Ok(())
}

/// Prints tokens, as JSON or for people.
pub(super) fn show(tokens: &[Token], json: bool) -> Result<(), CommandError> {
    if json {
        return print_json(&tokens.iter().map(TokenJson::from).collect::<Vec<_>>());
    }
    let columns = Columns { organization: false, wide: false };
    print(&table(&columns.heading(), tokens.iter().map(|token| columns.row(token)).collect()))
}

/// The optional columns.
struct Columns {
    /// The organization: if none is named, a root caller sees those of all.
    organization: bool,
    wide: bool,
}

impl Columns {
    fn heading(&self) -> Vec<&'static str> {
        let organization = self.organization.then_some("ORGANIZATION");
        let wide = if self.wide { &["LAST USE", "SCOPES", "NETWORKS", "LABELS"][..] } else { &[] };
        ["ID"]
            .into_iter()
            .chain(organization)
            .chain(["NAME", "USER", "STATE", "CREATED", "EXPIRES"])
            .chain(wide.iter().copied())
            .collect()
    }

    fn row(&self, token: &Token) -> Vec<String> {
        let mut row = vec![token.id.clone()];
        row.extend(self.organization.then(|| cell(&token.organization_id)));
        row.extend([
            token.name.clone(),
            token.user_id.clone(),
            state_word(token),
            token.create_time.map(to_the_second).unwrap_or_default(),
            expires(token),
        ]);
        if self.wide {
            let labels: BTreeMap<_, _> = token.labels.iter().collect();
            let labels: Vec<_> =
                labels.into_iter().map(|(key, value)| format!("{key}={}", cell(value))).collect();
            let list = |texts: &[String]| if texts.is_empty() { "-".to_owned() } else { texts.join(",") };
            row.extend([
                token.last_use_time.map_or_else(|| "never".to_owned(), to_the_second),
                list(&token.scopes),
                list(&token.allowed_cidrs),
                list(&labels),
            ]);
        }
        row
    }
}

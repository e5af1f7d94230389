//! `tokend policy dry-run` and `tokend policy enforce`: the tokens that break a policy, and the
//! consequences.

use std::io::{self, Write};

use prost_types::Timestamp;
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::{CheckPolicyRequest, EnforcePolicyRequest, Policy, PolicyBreach};

use super::{EnforceFlags, SetFlags, Target, stored};
use crate::cli::CommandError;
use crate::cli::client::{Client, ClientError};
use crate::cli::output::{quoted, remark, rfc3339, to_the_second, write_json_line};
use crate::cli::token_fields::TokenJson;
use crate::config::Environment;

/// A token that breaks a policy as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BreachJson<'a> {
    token: TokenJson<'a>,
    rules: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    new_expire_time: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    removed_scopes: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    revoked: bool,
}

/// Prints what a policy would break, page by page.
pub(super) async fn dry_run(
    SetFlags { target, rules }: SetFlags,
    environment: &Environment,
) -> Result<(), CommandError> {
    let policy = Some(Policy::from(rules)).filter(|policy| *policy != Policy::default());
    check(target, policy, environment).await
}

/// Prints what a policy would break; `None`: the organization's own policy.
async fn check(
    target: Target,
    policy: Option<Policy>,
    environment: &Environment,
) -> Result<(), CommandError> {
    let client = Client::open(target.address, environment).await?;
    let organization = stored(&client, target.organization).await?.organization_id;
    let (mut page_token, mut count) = (String::new(), 0);
    loop {
        let organization_id = organization.clone();
        let message = CheckPolicyRequest { organization_id, policy: policy.clone(), page_token };
        let call = client.call(Repeatable::Yes, message, |mut raw, request| async move {
            raw.check_policy(request).await
        });
        let page = call.await?;
        show(&page.breaches, target.json)?;
        count += page.breaches.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            remark(&format!("{count} tokens of {} break the policy\n", quoted(&organization)));
            return Ok(());
        }
    }
}

/// Enforces page after page, and prints what was done.
pub(super) async fn enforce(
    EnforceFlags { target, dry_run }: EnforceFlags,
    environment: &Environment,
) -> Result<(), CommandError> {
    if dry_run {
        return check(target, None, environment).await;
    }
    let client = Client::open(target.address, environment).await?;
    let organization = stored(&client, target.organization).await?.organization_id;
    let (mut page_token, mut count) = (String::new(), 0);
    loop {
        let organization_id = organization.clone();
        let message = EnforcePolicyRequest { organization_id, page_token };
        let call = client.call(Repeatable::No, message, |mut raw, request| async move {
            raw.enforce_policy(request).await
        });
        let page = call.await?;
        show(&page.breaches, target.json)?;
        count += page.breaches.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            let holds = page.effective_time.map_or_else(String::new, rfc3339);
            remark(&format!(
                "{count} tokens of {} adjusted, in effect everywhere from {holds}\n",
                quoted(&organization)
            ));
            return Ok(());
        }
    }
}

fn show(breaches: &[PolicyBreach], json: bool) -> Result<(), CommandError> {
    let mut output = io::stdout().lock();
    for breach in breaches {
        let token = breach.token.as_ref().ok_or(ClientError::Incomplete("token"))?;
        let written = if json {
            let json = BreachJson {
                token: token.into(),
                rules: &breach.rules,
                new_expire_time: breach.new_expire_time.map(rfc3339),
                removed_scopes: &breach.removed_scopes,
                revoked: breach.revoked,
            };
            write_json_line(&mut output, &json)
        } else {
            let (user, name) = (quoted(&token.user_id), quoted(&token.name));
            let rules = breach.rules.join(",");
            writeln!(output, "{}  {user}  {name}  {rules}: {}", token.id, remedy(breach))
        };
        written.map_err(CommandError::Output)?;
    }
    output.flush().map_err(CommandError::Output)
}

/// Describes what happens to the token.
fn remedy(breach: &PolicyBreach) -> String {
    let mut parts = Vec::new();
    if breach.revoked {
        parts.push("is revoked".to_owned());
    }
    parts.extend(breach.new_expire_time.map(|time: Timestamp| format!("expires {}", to_the_second(time))));
    if !breach.removed_scopes.is_empty() {
        parts.push(format!("loses {}", breach.removed_scopes.join(" ")));
    }
    parts.join(", ")
}

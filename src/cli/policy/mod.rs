//! `tokend policy …`: an organization's policy, over gRPC, in a running tokend.

mod breaches;
mod rules;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::{GetPolicyRequest, GetPolicyResponse, UpdatePolicyRequest};

use rules::{PolicyJson, RuleFlags};

use super::client::{AddressFlag, Client, ClientError};
use super::output::{aligned, print, print_json, rfc3339, to_the_second};
use super::token::CALLER_HELP;
use super::{CommandError, single_threaded};
use crate::config::{DisplayDuration, Environment};

/// `tokend policy …`
#[derive(Subcommand)]
pub(super) enum PolicyCommand {
    /// Show an organization's policy
    #[command(after_help = CALLER_HELP)]
    Get(GetFlags),
    /// Replace an organization's whole policy: what is not named is no longer limited
    ///
    /// Applies to tokens that are created, rotated or changed from then on. Needs a root caller.
    #[command(after_help = CALLER_HELP)]
    Set(SetFlags),
    /// List the existing tokens that break a policy; changes nothing
    ///
    /// Checks the policy given here, as with set; without one, the organization's own.
    #[command(after_help = CALLER_HELP)]
    DryRun(SetFlags),
    /// Make existing tokens comply with their organization's policy
    ///
    /// Shortens lifetimes, removes scopes, and revokes tokens that cannot comply otherwise: what dry-run
    /// lists. Needs a root caller. May be interrupted and run again.
    #[command(after_help = CALLER_HELP)]
    Enforce(EnforceFlags),
}

/// Flags of all of them.
#[derive(Args)]
struct Target {
    #[command(flatten)]
    address: AddressFlag,

    /// The organization [default: the caller's own; for a root caller: default]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `tokend policy get`.
#[derive(Args)]
pub(crate) struct GetFlags {
    #[command(flatten)]
    target: Target,
}

/// Flags of `tokend policy enforce`.
#[derive(Args)]
pub(crate) struct EnforceFlags {
    #[command(flatten)]
    target: Target,

    /// Change nothing: print what would be done, as dry-run does
    #[arg(long)]
    dry_run: bool,
}

/// Flags of `tokend policy set` and `tokend policy dry-run`.
#[derive(Args)]
pub(crate) struct SetFlags {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    rules: RuleFlags,
}

/// A response as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoredJson<'a> {
    organization_id: &'a str,
    policy: PolicyJson<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    updated_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_time: Option<String>,
}

impl PolicyCommand {
    /// Returns whether nothing is lost if the rest of the output is not read. Enforcement continues
    /// only as its pages are printed.
    pub(super) fn only_shows(&self) -> bool {
        !matches!(self, Self::Enforce(_))
    }
}

/// Runs a policy command to its end.
pub(super) fn run(command: PolicyCommand, environment: &Environment) -> Result<(), CommandError> {
    single_threaded()?.block_on(async {
        match command {
            PolicyCommand::Get(flags) => get(flags, environment).await,
            PolicyCommand::Set(flags) => set(flags, environment).await,
            PolicyCommand::DryRun(flags) => breaches::dry_run(flags, environment).await,
            PolicyCommand::Enforce(flags) => breaches::enforce(flags, environment).await,
        }
    })
}

/// Reads the policy of an organization; empty: the caller's own, which the response names.
async fn stored(client: &Client, organization_id: String) -> Result<GetPolicyResponse, CommandError> {
    let message = GetPolicyRequest { organization_id };
    client
        .call(Repeatable::Yes, message, |mut raw, request| async move { raw.get_policy(request).await })
        .await
}

async fn get(GetFlags { target }: GetFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(target.address, environment).await?;
    show(&stored(&client, target.organization).await?, target.json)
}

async fn set(SetFlags { target, rules }: SetFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(target.address, environment).await?;
    let (organization_id, policy) = (target.organization, Some(rules.into()));
    let message = UpdatePolicyRequest { organization_id, policy };
    let answer = client
        .call(Repeatable::No, message, |mut raw, request| async move { raw.update_policy(request).await });
    let answer = answer.await?;
    let stored = GetPolicyResponse {
        organization_id: answer.organization_id,
        policy: answer.policy,
        updated_by: answer.updated_by,
        update_time: answer.update_time,
    };
    show(&stored, target.json)
}

fn show(stored: &GetPolicyResponse, json: bool) -> Result<(), CommandError> {
    let policy = stored.policy.as_ref().ok_or(ClientError::Incomplete("policy"))?;
    if json {
        let json = StoredJson {
            organization_id: &stored.organization_id,
            policy: policy.into(),
            updated_by: &stored.updated_by,
            update_time: stored.update_time.map(rfc3339),
        };
        return print_json(&[json]);
    }
    let lasting = |given: Option<prost_types::Duration>, otherwise: &str| {
        let duration = given.and_then(|given| Duration::try_from(given).ok());
        duration.map_or_else(|| otherwise.to_owned(), |time| DisplayDuration(time).to_string())
    };
    let most = policy.most_active_tokens_per_user;
    let mut rows: Vec<[String; 2]> = vec![
        ["organization".to_owned(), stored.organization_id.clone()],
        ["longest lifetime".to_owned(), lasting(policy.longest_lifetime, "any")],
        [
            "expiration".to_owned(),
            if policy.expiration_required { "required" } else { "optional" }.to_owned(),
        ],
        ["longest grace".to_owned(), lasting(policy.longest_grace, "30d")],
        ["tokens per user".to_owned(), if most > 0 { most.to_string() } else { "any number".to_owned() }],
    ];
    let scopes = policy.allowed_scopes.join(" ");
    rows.push(["scopes".to_owned(), if scopes.is_empty() { "any".to_owned() } else { scopes }]);
    rows.push(["reuse".to_owned(), if policy.reuse_detection { "revokes" } else { "is refused" }.to_owned()]);
    if policy.plan_required || !policy.default_plan.is_empty() {
        let required = if policy.plan_required { "required" } else { "optional" };
        let default = Some(&*policy.default_plan).filter(|name| !name.is_empty());
        let default = default.map_or_else(String::new, |name| format!(", {name} by default"));
        rows.push(["plan".to_owned(), format!("{required}{default}")]);
    }
    if let Some(time) = stored.update_time {
        rows.push(["set".to_owned(), to_the_second(time)]);
        rows.push(["by".to_owned(), stored.updated_by.clone()]);
    }
    print(&aligned(rows.into_iter().map(Vec::from).collect()))
}

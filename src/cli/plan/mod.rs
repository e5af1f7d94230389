//! `tokend plan …`: the plans of an organization, over gRPC, in a running tokend.

mod credits;
mod limit;

use std::num::NonZeroU32;

use clap::{Args, Subcommand};
use serde::Serialize;
use tokend_client::Repeatable;
use tokend_client::proto::{
    DeletePlanRequest, GetPlanRequest, Limit, ListPlansRequest, Plan, SetPlanRequest,
};

use super::client::{AddressFlag, Client, ClientError};
use super::output::{aligned, cell, print, print_json, quoted, remark, table, to_the_second};
use super::token::{CALLER_HELP, preview};
use super::{CommandError, single_threaded};
use crate::api::message_json::{ALWAYS_OF_PLAN, MessageJson};
use crate::config::Environment;

/// The most plans in one page of the server.
const LARGEST_PAGE: usize = 1000;

/// `tokend plan …`
#[derive(Subcommand)]
pub(super) enum PlanCommand {
    /// Create a plan, or replace all limits of the plan with this name
    ///
    /// Limits hold for the tokens that name the plan. Needs a caller with tokend:write and no grant.
    #[command(after_help = CALLER_HELP)]
    Set(SetFlags),
    /// Show a plan
    #[command(after_help = CALLER_HELP)]
    Get(GetFlags),
    /// List plans
    #[command(after_help = CALLER_HELP)]
    List(ListFlags),
    /// Delete a plan that no token in use names
    ///
    /// Takes it from tokens that are revoked or expired. Needs a caller with tokend:write and no grant.
    #[command(after_help = CALLER_HELP)]
    Delete(DeleteFlags),
    /// Add credits to a balance, once
    ///
    /// If the answer is lost, repeat the command with the --request-id that it names. Needs a caller with tokend:write
    /// and no grant.
    #[command(after_help = CALLER_HELP)]
    AddCredits(credits::AddCreditsFlags),
}

/// The plan that a command is about.
#[derive(Args)]
struct Target {
    #[command(flatten)]
    address: AddressFlag,

    /// Name of the plan: 1 to 63 of a-z, 0-9, '.', '_' and '-'
    plan: String,

    /// Organization of the plan [default: the caller's own; for a root caller: default]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// Print the response as one JSON object
    #[arg(long)]
    json: bool,
}

/// Flags of `tokend plan set`.
#[derive(Args)]
pub(crate) struct SetFlags {
    #[command(flatten)]
    target: Target,

    /// A limit, up to eight times, such as name=reads,per=token,rate=100/1m,burst=20,on-outage=admit or
    /// name=credits,initial=1000,refill=500/month,mode=add; per is token, user or organization [default: token]
    #[arg(long = "limit", value_name = "LIMIT", value_parser = limit::parse, required = true)]
    limits: Vec<Limit>,
}

/// Flags of `tokend plan delete`.
#[derive(Args)]
pub(crate) struct DeleteFlags {
    #[command(flatten)]
    target: Target,

    /// Delete nothing: print the tokens that name the plan; needs tokend:read
    #[arg(long)]
    dry_run: bool,
}

/// Flags of `tokend plan get`.
#[derive(Args)]
pub(crate) struct GetFlags {
    #[command(flatten)]
    target: Target,
}

/// Flags of `tokend plan list`.
#[derive(Args)]
pub(crate) struct ListFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Plans of this organization only [default: the caller's own; for a root caller: all]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// The most plans to list; if there are more, a line on standard error says so
    #[arg(long, value_name = "NUMBER", default_value = "1000")]
    limit: NonZeroU32,

    /// Print each plan as a JSON object on its own line
    #[arg(long)]
    json: bool,
}

/// The response to a deletion as JSON; a 64-bit number is a string there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeletedJson {
    ended_count: String,
}

/// Runs a plan command to its end.
pub(super) fn run(command: PlanCommand, environment: &Environment) -> Result<(), CommandError> {
    single_threaded()?.block_on(async {
        match command {
            PlanCommand::Set(flags) => set(flags, environment).await,
            PlanCommand::Get(flags) => get(flags, environment).await,
            PlanCommand::List(flags) => list(flags, environment).await,
            PlanCommand::Delete(flags) => delete(flags, environment).await,
            PlanCommand::AddCredits(flags) => credits::run(flags, environment).await,
        }
    })
}

async fn set(SetFlags { target, limits }: SetFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(target.address, environment).await?;
    let message = SetPlanRequest { organization_id: target.organization, name: target.plan, limits };
    let answer =
        client.call(Repeatable::No, message, |mut raw, request| async move { raw.set_plan(request).await });
    show(&answer.await?.plan.ok_or(ClientError::Incomplete("plan"))?, target.json)
}

async fn get(GetFlags { target }: GetFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(target.address, environment).await?;
    let message = GetPlanRequest { organization_id: target.organization, name: target.plan };
    let answer =
        client.call(Repeatable::Yes, message, |mut raw, request| async move { raw.get_plan(request).await });
    show(&answer.await?.plan.ok_or(ClientError::Incomplete("plan"))?, target.json)
}

async fn list(flags: ListFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let limit = usize::try_from(flags.limit.get()).unwrap_or(usize::MAX);
    let mut message = ListPlansRequest { organization_id: flags.organization, ..ListPlansRequest::default() };
    let (mut rows, mut listed) = (Vec::new(), 0);
    let more = loop {
        message.page_size = i32::try_from(LARGEST_PAGE.min(limit - listed)).unwrap_or(i32::MAX);
        let call = client.call(Repeatable::Yes, message.clone(), |mut raw, request| async move {
            raw.list_plans(request).await
        });
        let page = call.await?;
        listed += page.plans.len();
        if flags.json {
            let json = page.plans.iter().map(|plan| MessageJson::new("Plan", plan, &ALWAYS_OF_PLAN));
            print_json(&json.collect::<Vec<_>>())?;
        } else {
            rows.extend(page.plans.iter().map(|plan| {
                let limits = plan.limits.iter().map(|limit| limit.name.clone()).collect::<Vec<_>>();
                let set = plan.update_time.map_or_else(|| "-".to_owned(), to_the_second);
                vec![cell(&plan.organization_id), cell(&plan.name), limits.join(" "), set]
            }));
        }
        message.page_token = page.next_page_token;
        if message.page_token.is_empty() || listed >= limit {
            break !message.page_token.is_empty();
        }
    };
    if !flags.json {
        print(&table(&["ORGANIZATION", "PLAN", "LIMITS", "SET"], rows))?;
    }
    if more {
        remark(&format!("there are more than these {listed}: raise --limit\n"));
    }
    Ok(())
}

async fn delete(
    DeleteFlags { target, dry_run }: DeleteFlags,
    environment: &Environment,
) -> Result<(), CommandError> {
    let client = Client::open(target.address, environment).await?;
    let name = target.plan;
    if dry_run {
        return preview::plan(&client, (target.organization, name), target.json).await;
    }
    let message = DeletePlanRequest { organization_id: target.organization, name: name.clone() };
    let answer = client
        .call(Repeatable::No, message, |mut raw, request| async move { raw.delete_plan(request).await });
    let ended = answer.await?.ended_count;
    if target.json {
        return print_json(&[DeletedJson { ended_count: ended.to_string() }]);
    }
    print(&format!("deleted the plan {}\n{ended} ended tokens had it\n", quoted(&name)))
}

fn show(plan: &Plan, json: bool) -> Result<(), CommandError> {
    if json {
        return print_json(&[MessageJson::new("Plan", plan, &ALWAYS_OF_PLAN)]);
    }
    let row = |label: &str, text: String| vec![label.to_owned(), text];
    let mut rows = vec![row("plan", plan.name.clone()), row("organization", plan.organization_id.clone())];
    rows.extend(plan.limits.iter().map(|limit| row("limit", limit::text(limit))));
    rows.extend(plan.update_time.map(|time| row("set", to_the_second(time))));
    rows.push(row("by", plan.updated_by.clone()));
    print(&aligned(rows))
}

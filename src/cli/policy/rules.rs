//! A policy on the command line and as JSON. Used by `tokend policy …`.

use clap::Args;
use serde::Serialize;

use crate::cli::times::parse_ttl;
use tokend_client::proto::Policy;

/// A policy on the command line.
#[derive(Args)]
pub(super) struct RuleFlags {
    /// The longest time from a token's creation to its expiration, such as 90d; every token must then expire
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    longest_lifetime: Option<prost_types::Duration>,

    /// Every token must expire
    #[arg(long)]
    expiration_required: bool,

    /// The longest time that a rotated token is still accepted, such as 1h; at most 30d
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    longest_grace: Option<prost_types::Duration>,

    /// How many active tokens a user may have [default: any number]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..))]
    most_active_tokens_per_user: Option<i32>,

    /// Scope that covers what a token may do; may be repeated [default: any]
    #[arg(long = "allowed-scope", value_name = "SCOPE")]
    allowed_scopes: Vec<String>,

    /// Revoke a token's family when a superseded token is used to rotate after its grace period
    #[arg(long)]
    reuse_detection: bool,

    /// Every token must have a plan
    #[arg(long)]
    plan_required: bool,

    /// Plan of tokens that are created without one, such as free [default: none]
    #[arg(long, value_name = "PLAN", default_value = "", hide_default_value = true)]
    default_plan: String,
}

impl From<RuleFlags> for Policy {
    fn from(rules: RuleFlags) -> Self {
        Self {
            longest_lifetime: rules.longest_lifetime,
            expiration_required: rules.expiration_required,
            longest_grace: rules.longest_grace,
            most_active_tokens_per_user: rules.most_active_tokens_per_user.unwrap_or(0),
            allowed_scopes: rules.allowed_scopes,
            reuse_detection: rules.reuse_detection,
            plan_required: rules.plan_required,
            default_plan: rules.default_plan,
        }
    }
}

/// A policy as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_lifetime: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    expiration_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_grace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    most_active_tokens_per_user: Option<i32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowed_scopes: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reuse_detection: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    plan_required: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    default_plan: &'a str,
}

impl<'a> From<&'a Policy> for PolicyJson<'a> {
    fn from(policy: &'a Policy) -> Self {
        let seconds = |duration: prost_types::Duration| format!("{}s", duration.seconds);
        Self {
            longest_lifetime: policy.longest_lifetime.map(seconds),
            expiration_required: policy.expiration_required,
            longest_grace: policy.longest_grace.map(seconds),
            most_active_tokens_per_user: Some(policy.most_active_tokens_per_user).filter(|most| *most > 0),
            allowed_scopes: &policy.allowed_scopes,
            reuse_detection: policy.reuse_detection,
            plan_required: policy.plan_required,
            default_plan: &policy.default_plan,
        }
    }
}

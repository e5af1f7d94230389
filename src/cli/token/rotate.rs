//! `tokend token rotate`: prints the successor's secret alone on standard output.

use clap::Args;
use prost_types::Timestamp;
use tokend_client::proto::RotateTokenRequest;
use tokend_client::proto::rotate_token_request::Expiration;

use super::create::{RequestIdFlag, show_secret};
use crate::cli::CommandError;
use crate::cli::arguments::parse_token_id;
use crate::cli::client::{AddressFlag, Client};
use crate::cli::output::{remark, to_the_second};
use crate::cli::secret_output::OutputFlag;
use crate::cli::times::{parse_time, parse_ttl};
use crate::config::Environment;

/// Flags of `tokend token rotate`.
#[derive(Args)]
pub(crate) struct RotateFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// Id of the token: the 22 characters that follow `tokd_` in its secret
    #[arg(value_parser = parse_token_id)]
    token_id: String,

    /// How long the old token is still accepted, such as 1h; at most 30d; at least 1m for the
    /// caller's own token [default: not at all]
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    grace_period: Option<prost_types::Duration>,

    #[command(flatten)]
    expiration: ExpirationFlags,

    /// Rotate it even if no root token is left that is active for another 24 hours
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    repetition: RequestIdFlag,

    #[command(flatten)]
    output: OutputFlag,

    /// Print the whole response as one JSON object, including the secret
    #[arg(long)]
    json: bool,
}

/// The new token's expiration; by default the old one's.
#[derive(Args)]
#[group(multiple = false)]
struct ExpirationFlags {
    /// Time from which the new token is refused, RFC 3339 [default: that of the old token]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expire_time: Option<Timestamp>,

    /// How long the new token is accepted, such as 30d or 12h
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    ttl: Option<prost_types::Duration>,

    /// The new token never expires
    #[arg(long)]
    no_expiration: bool,
}

pub(super) async fn run(flags: RotateFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let request_id = flags.repetition.or_new()?;
    let mut output = flags.output.open()?;
    let message = RotateTokenRequest {
        token_id: flags.token_id,
        expiration: flags.expiration.chosen(),
        grace_period: flags.grace_period,
        request_id: request_id.clone(),
        force: flags.force,
    };
    let answer =
        client.make(&request_id, message, |mut raw, request| async move { raw.rotate_token(request).await });
    let answer = answer.await?;
    let rotation = answer.token.as_ref().and_then(|token| token.create_time);
    remark(&old_end(rotation, flags.grace_period));
    show_secret(answer.token.as_ref(), answer.secret, &request_id, &mut output, flags.json)
}

/// Returns until when the old token is accepted.
fn old_end(rotation: Option<Timestamp>, grace: Option<prost_types::Duration>) -> String {
    let end = rotation.zip(grace).and_then(|(rotation, grace)| {
        let seconds = rotation.seconds.checked_add(grace.seconds)?;
        Some(to_the_second(Timestamp { seconds, nanos: 0 }))
    });
    match end {
        Some(end) => format!("the old token is accepted until {end} at the latest\n"),
        None => "the old token is no longer accepted\n".to_owned(),
    }
}

impl ExpirationFlags {
    fn chosen(self) -> Option<Expiration> {
        let time = self.expire_time.map(Expiration::ExpireTime);
        let ttl = self.ttl.map(Expiration::Ttl);
        time.or(ttl).or(self.no_expiration.then_some(Expiration::NoExpiration(true)))
    }
}

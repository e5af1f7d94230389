//! `tokend token create`: prints the secret alone on standard output, so that a script can store it.

use std::collections::HashMap;
use std::io::Write as _;

use clap::Args;
use prost_types::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokend_client::proto;
use tokend_client::proto::create_token_request::Expiration;
use zeroize::Zeroizing;

use super::grant::GrantFlags;
use crate::cli::CommandError;
use crate::cli::client::{AddressFlag, Client, ClientError};
use crate::cli::output::{remark, write_json_line};
use crate::cli::request_id::new_request_id;
use crate::cli::secret_output::{OutputFlag, SecretOutput};
use crate::cli::times::{parse_time, parse_ttl};
use crate::cli::token_fields::{TokenJson, token_lines};
use crate::config::Environment;

/// Flags of `tokend token create`.
#[derive(Args)]
pub(crate) struct CreateFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// User that owns the token, 1 to 200 bytes
    #[arg(long, value_name = "USER_ID")]
    user: String,

    /// The user is a service account, not a person
    #[arg(long)]
    service: bool,

    /// Name for people, 1 to 100 characters
    #[arg(long)]
    name: String,

    /// Organization of the token [default: the caller's own; for a root caller: `default`]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    #[command(flatten)]
    expiration: ExpirationFlags,

    /// Scope of the token, such as orders:read; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,

    /// Label of the token; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,

    /// Network that the token may be used from, such as 192.0.2.0/24; may be repeated [default: any]
    #[arg(long = "cidr", value_name = "NETWORK")]
    allowed_cidrs: Vec<String>,

    /// Plan whose limits the token gets, such as free [default: none]
    #[arg(long, value_name = "PLAN", default_value = "", hide_default_value = true)]
    plan: String,

    #[command(flatten)]
    grant: GrantFlags,

    #[command(flatten)]
    repetition: RequestIdFlag,

    #[command(flatten)]
    output: OutputFlag,

    /// Print the whole response as one JSON object, including the secret
    #[arg(long)]
    json: bool,
}

/// The id with which a request can be repeated.
#[derive(Args)]
pub(super) struct RequestIdFlag {
    /// UUID of version 4 that identifies this request: the same caller can repeat the command with it within
    /// 24 hours and gets the same token and secret [default: a new one, which is printed if the response or
    /// the secret is lost]
    #[arg(long, value_name = "UUID")]
    request_id: Option<String>,
}

impl RequestIdFlag {
    /// Returns the given id, or a new one.
    pub(super) fn or_new(self) -> Result<String, CommandError> {
        self.request_id.map_or_else(new_request_id, Ok)
    }
}

/// The new token's expiration, which must be chosen.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct ExpirationFlags {
    /// Time from which the token is refused, RFC 3339, such as 2030-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expire_time: Option<Timestamp>,

    /// How long the token is accepted, such as 30d or 12h
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    ttl: Option<prost_types::Duration>,

    /// The token never expires
    #[arg(long)]
    no_expiration: bool,
}

/// The response as JSON.
#[derive(Serialize)]
struct CreatedJson<'a> {
    token: TokenJson<'a>,
    secret: &'a str,
}

pub(super) async fn run(flags: CreateFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let request_id = flags.repetition.or_new()?;
    let mut output = flags.output.open()?;
    let message = proto::CreateTokenRequest {
        organization_id: flags.organization,
        user_id: flags.user,
        name: flags.name,
        expiration: flags.expiration.chosen(),
        scopes: flags.scopes,
        labels: labels(flags.labels)?,
        allowed_cidrs: flags.allowed_cidrs,
        request_id: request_id.clone(),
        grant: flags.grant.chosen(),
        plan: flags.plan,
        owner_kind: if flags.service { proto::OwnerKind::Service } else { proto::OwnerKind::User }.into(),
    };
    let answer =
        client.make(&request_id, message, |mut raw, request| async move { raw.create_token(request).await });
    let answer = answer.await?;
    show_secret(answer.token.as_ref(), answer.secret, &request_id, &mut output, flags.json)
}

/// Writes a new token's secret alone to the output, and the token to standard error; or both to the
/// output as JSON.
pub(super) fn show_secret(
    token: Option<&proto::Token>,
    secret: String,
    request_id: &str,
    output: &mut SecretOutput,
    json: bool,
) -> Result<(), CommandError> {
    let secret = SecretString::from(secret);
    let token = token.ok_or(ClientError::Incomplete("token"))?;
    let mut text = Zeroizing::new(Vec::new());
    let formatted = if json {
        let created = CreatedJson { token: TokenJson::from(token), secret: secret.expose_secret() };
        write_json_line(&mut *text, &created)
    } else {
        remark(&token_lines(token));
        remark("the secret is shown only this once:\n");
        writeln!(text, "{}", secret.expose_secret())
    };
    formatted.and_then(|()| output.write(&text)).map_err(|source| CommandError::SecretNotPrinted {
        token_id: token.id.clone(),
        request_id: request_id.to_owned(),
        source,
    })
}

impl ExpirationFlags {
    fn chosen(self) -> Option<Expiration> {
        let time = self.expire_time.map(Expiration::ExpireTime);
        let ttl = self.ttl.map(Expiration::Ttl);
        time.or(ttl).or(self.no_expiration.then_some(Expiration::NoExpiration(true)))
    }
}

/// Accepts each label once: with two values, it is unknown which is meant.
pub(super) fn labels(given: Vec<(String, String)>) -> Result<HashMap<String, String>, CommandError> {
    let mut labels = HashMap::with_capacity(given.len());
    for (key, value) in given {
        if labels.insert(key, value).is_some() {
            return Err(CommandError::LabelTwice);
        }
    }
    Ok(labels)
}

pub(super) fn parse_label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: CreateFlags,
    }

    fn parse(more: &[&str]) -> Result<CreateFlags, clap::Error> {
        let line = ["create", "--user", "u", "--name", "n"];
        Line::try_parse_from(line.iter().chain(more)).map(|line| line.flags)
    }

    #[test]
    fn an_expiration_must_be_chosen() {
        let refused = parse(&[]).err().unwrap();

        assert_eq!(refused.kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn two_expirations_are_refused() {
        let refused = parse(&["--ttl", "1d", "--no-expiration"]).err().unwrap();

        assert_eq!(refused.kind(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn each_expiration_flag_sets_its_own_field() {
        let chosen = |line: &[&str]| parse(line).unwrap().expiration.chosen().unwrap();

        assert_eq!(
            chosen(&["--ttl", "30d"]),
            Expiration::Ttl(prost_types::Duration { seconds: 2_592_000, nanos: 0 })
        );
        assert_eq!(
            chosen(&["--expire-time", "2023-11-14T23:13:20.5+01:00"]),
            Expiration::ExpireTime(Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 })
        );
        assert_eq!(chosen(&["--no-expiration"]), Expiration::NoExpiration(true));
    }

    #[test]
    fn a_date_without_a_time_is_refused_with_an_example() {
        let refused = parse(&["--expire-time", "2030-01-31"]).err().unwrap();

        assert_eq!(refused.kind(), ErrorKind::ValueValidation);
        assert!(refused.to_string().contains("2030-01-31T00:00:00Z"), "{refused}");
    }

    #[test]
    fn a_label_splits_at_its_first_equals_sign() {
        let flags = parse(&["--no-expiration", "--label", "a=b=c", "--label", "d="]).unwrap();

        let pairs = [("a", "b=c"), ("d", "")];
        assert_eq!(flags.labels, pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}

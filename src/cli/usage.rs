//! `tokend usage`: how often tokens were verified, over gRPC, in a running tokend.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use prost_types::Timestamp;
use tokend_client::Repeatable;
use tokend_client::proto::{GetUsageRequest, GetUsageResponse, OwnerKind, UsageStep, Verdict, VerdictCount};

use super::client::{AddressFlag, Client};
use super::output::{cell, print, print_json, table, to_the_second};
use super::owner_kind::KindFlag;
use super::times::parse_past;
use super::{CommandError, single_threaded};
use crate::api::message_json::MessageJson;
use crate::cli::arguments::parse_token_id;
use crate::config::Environment;

/// The most characters of a sparkline.
const WIDEST: i64 = 80;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Flags of `tokend usage`.
#[derive(Args)]
pub(super) struct UsageFlags {
    #[command(flatten)]
    address: AddressFlag,

    /// This token only [default: all that the other flags select]
    #[arg(long, value_name = "TOKEN_ID", value_parser = parse_token_id,
        conflicts_with_all = ["user", "organization", "top"])]
    token: Option<String>,

    /// Tokens of this user only [default: of all users; for a caller with tokend:self: its own]
    #[arg(long, value_name = "USER_ID")]
    user: Option<String>,

    /// What --user names [default: either]
    #[arg(long, requires = "user")]
    kind: Option<KindFlag>,

    /// The organization [default: the caller's own; for a root caller: default]
    #[arg(long, value_name = "ORGANIZATION_ID", default_value = "", hide_default_value = true)]
    organization: String,

    /// The first time, or how long ago it is, such as 7d [default: 24h, or 30d with --by day, before the end]
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    from: Option<Timestamp>,

    /// The end, or how long ago it is [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    to: Option<Timestamp>,

    /// What a line covers, in UTC
    #[arg(long, default_value = "hour")]
    by: StepFlag,

    /// Name this many tokens, of those with the most verifications; at most 100
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = clap::value_parser!(i32).range(0..=100))]
    top: i32,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a line covers.
#[derive(Clone, Copy, ValueEnum)]
enum StepFlag {
    Hour,
    Day,
}

/// Runs the command to its end.
pub(super) fn run(flags: UsageFlags, environment: &Environment) -> Result<(), CommandError> {
    single_threaded()?.block_on(show(flags, environment))
}

async fn show(flags: UsageFlags, environment: &Environment) -> Result<(), CommandError> {
    let client = Client::open(flags.address, environment).await?;
    let (step, length) = match flags.by {
        StepFlag::Hour => (UsageStep::Hour, 3_600),
        StepFlag::Day => (UsageStep::Day, 86_400),
    };
    let message = GetUsageRequest {
        organization_id: flags.organization,
        token_id: flags.token.unwrap_or_default(),
        user_id: flags.user.unwrap_or_default(),
        owner_kind: flags.kind.map_or(OwnerKind::Unspecified, OwnerKind::from).into(),
        start_time: flags.from,
        end_time: flags.to,
        step: step.into(),
        top_tokens: flags.top,
    };
    let call =
        client.call(Repeatable::Yes, message, |mut raw, request| async move { raw.get_usage(request).await });
    let usage = call.await?;
    if flags.json {
        return print_json(&[MessageJson::new("GetUsageResponse", &usage, &[])]);
    }
    print(&text(&usage, length))
}

/// Returns the answer for people: a table of points, their sparkline, and a table of tokens.
fn text(usage: &GetUsageResponse, step: i64) -> String {
    let shown = |time: Option<Timestamp>| time.map(to_the_second).unwrap_or_default();
    let (start, end) = (shown(usage.start_time), shown(usage.end_time));
    let mut text = format!("{}{} {start} to {end}\n", points(usage), sparkline(usage, step));
    if !usage.top_tokens.is_empty() {
        let rows = usage.top_tokens.iter().map(|token| {
            let all = total(&token.counts);
            let valid = of(&token.counts, Verdict::Valid.into());
            let named = |text: &str| if text.is_empty() { "-".to_owned() } else { cell(text) };
            vec![
                all.to_string(),
                all.saturating_sub(valid).to_string(),
                token.token_id.clone(),
                named(&token.user_id),
                named(&token.name),
            ]
        });
        text.push('\n');
        text.push_str(&table(&["VERIFICATIONS", "REFUSED", "TOKEN", "USER", "NAME"], rows.collect()));
    }
    text
}

fn points(usage: &GetUsageResponse) -> String {
    let mut sums: BTreeMap<i32, i64> = BTreeMap::new();
    for count in usage.points.iter().flat_map(|point| &point.counts) {
        let sum = sums.entry(count.verdict).or_default();
        *sum = sum.saturating_add(count.verifications);
    }
    if sums.is_empty() {
        return "no verifications\n".to_owned();
    }
    let verdicts: Vec<String> = sums.keys().map(|verdict| name(*verdict)).collect();
    let heading: Vec<&str> = ["START"].into_iter().chain(verdicts.iter().map(String::as_str)).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for point in &usage.points {
        let start = point.start_time.map(to_the_second).unwrap_or_default();
        let counts = sums.keys().map(|verdict| of(&point.counts, *verdict).to_string());
        rows.push([start].into_iter().chain(counts).collect());
    }
    let all = sums.values().map(i64::to_string);
    rows.push(["all".to_owned()].into_iter().chain(all).collect());
    table(&heading, rows)
}

/// Returns the verifications over time as one line of bars, each as high as its part of the highest one. Several steps
/// share a bar if there are too many.
fn sparkline(usage: &GetUsageResponse, step: i64) -> String {
    let (start, end) = match (usage.start_time, usage.end_time) {
        (Some(start), Some(end)) => (start.seconds, end.seconds),
        _ => return String::new(),
    };
    let steps = ((end - start) / step).clamp(1, 1_000);
    let width = steps.min(WIDEST);
    let mut heights = vec![0_i64; usize::try_from(width).unwrap_or(0)];
    for point in &usage.points {
        let number = (point.start_time.unwrap_or_default().seconds - start) / step;
        if let Some(height) =
            usize::try_from(number * width / steps).ok().and_then(|bar| heights.get_mut(bar))
        {
            *height = height.saturating_add(total(&point.counts));
        }
    }
    let highest = heights.iter().copied().max().unwrap_or_default();
    heights.into_iter().map(|height| bar(height, highest)).collect()
}

fn bar(height: i64, highest: i64) -> char {
    if height <= 0 || highest <= 0 {
        return ' ';
    }
    let last = BARS.len() as i128 - 1;
    let eighth = i128::from(height) * last / i128::from(highest);
    usize::try_from(eighth).ok().and_then(|eighth| BARS.get(eighth)).copied().unwrap_or(' ')
}

fn total(counts: &[VerdictCount]) -> i64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(count.verifications))
}

fn of(counts: &[VerdictCount], verdict: i32) -> i64 {
    counts.iter().filter(|count| count.verdict == verdict).map(|count| count.verifications).sum()
}

/// Returns the name of a verdict, such as `MISSING_SCOPE`; of one that is newer than this program, its number.
fn name(verdict: i32) -> String {
    Verdict::try_from(verdict).map_or_else(
        |_| format!("VERDICT_{verdict}"),
        |known| known.as_str_name().trim_start_matches("VERDICT_").to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use tokend_client::proto::{TokenUsage, UsagePoint};

    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp { seconds: hour * 3_600, nanos: 0 }
    }

    fn counted(counts: &[(i32, i64)]) -> Vec<VerdictCount> {
        counts.iter().map(|&(verdict, verifications)| VerdictCount { verdict, verifications }).collect()
    }

    #[test]
    fn a_table_has_the_verdicts_that_occur_and_a_line_of_bars_all_steps() {
        let point = |hour, counts| UsagePoint { start_time: Some(at(hour)), counts: counted(counts) };
        let usage = GetUsageResponse {
            start_time: Some(at(0)),
            end_time: Some(at(5)),
            points: vec![point(0, &[(1, 70), (7, 30)]), point(2, &[(1, 1)]), point(4, &[(1, 50), (99, 1)])],
            top_tokens: vec![TokenUsage {
                token_id: "0123456789ABCDEFGHIJKL".to_owned(),
                counts: counted(&[(1, 121), (7, 30)]),
                ..TokenUsage::default()
            }],
        };
        let expected = "\
START                 VALID  MISSING_SCOPE  VERDICT_99
1970-01-01T00:00:00Z  70     30             0
1970-01-01T02:00:00Z  1      0              0
1970-01-01T04:00:00Z  50     0              1
all                   121    30             1
█ ▁ ▄ 1970-01-01T00:00:00Z to 1970-01-01T05:00:00Z

VERIFICATIONS  REFUSED  TOKEN                   USER  NAME
151            30       0123456789ABCDEFGHIJKL  -     -
";
        assert_eq!(text(&usage, 3_600), expected);
        let long = GetUsageResponse { end_time: Some(at(1_000)), ..usage };
        let line = sparkline(&long, 3_600);
        assert_eq!(line.trim_end(), "█");
        assert_eq!(line.chars().count(), 80);
        let none = GetUsageResponse {
            start_time: Some(at(0)),
            end_time: Some(at(2)),
            ..GetUsageResponse::default()
        };
        assert_eq!(text(&none, 3_600), "no verifications\n   1970-01-01T00:00:00Z to 1970-01-01T02:00:00Z\n");
    }
}

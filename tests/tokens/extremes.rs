//! What every RPC does with the longest and strangest values of its fields. The fields come from
//! the descriptors, so new ones are tried, too.
//!
//! `cargo test --release --test api no_field -- --nocapture` prints the cost of each.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use rustix::time::{ClockId, clock_gettime};
use tokend::api::proto::{
    CheckPolicyRequest, CreatePortalSessionRequest, CreateTokenRequest, GetUsageRequest,
    ListTokenEventsRequest, ListTokensRequest, Policy, RotateTokenRequest, SetPlanRequest,
    UpdatePolicyRequest, UpdateTokenRequest,
};
use tonic::codegen::http::HeaderMap;
use tonic::{Code, Status};

use crate::support::client::{created, mask, ordinary};
use crate::support::contract::{Field, call, rpcs};
use crate::support::replica::Replica;
use crate::support::status::reason;

/// The maximum size of a message, in bytes.
const MESSAGE: usize = 64 * 1024;

/// The maximum size of a refusal, in bytes, including header names.
const REFUSAL: usize = 8 * 1024;

/// Returns the size of a status's headers.
fn length(status: &Status) -> usize {
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Returns messages of about 64 KiB that consist of this field.
fn worst(field: &Field) -> Vec<Vec<u8>> {
    let room = MESSAGE - 64;
    match field.kind {
        Type::String | Type::Bytes if field.repeated => {
            // The tag and the length of an element take two bytes.
            ["", "\u{1}", "x*", "%%", "é", "name"]
                .map(|text| field.times(text.as_bytes(), room / (text.len() + 2)))
                .into()
        }
        Type::String | Type::Bytes => ["\u{1}", "%", "é", "a", " "]
            .map(|text| field.delimited(text.repeat(room / text.len()).as_bytes()))
            .into(),
        Type::Enum | Type::Int32 | Type::Int64 | Type::Bool if field.repeated => {
            [0, 1, 99].map(|number: u8| field.delimited(&vec![number; room])).into()
        }
        // An entry of a map, with a key of four letters.
        Type::Message if field.repeated => {
            let entries = (0..room / 8).map(|number| format!("\n\u{4}{number:04}")).collect::<Vec<_>>();
            let one = field.delimited(b"");
            assert_eq!(one.len(), 2, "a map within a message is not written here");
            let entries = entries.iter().map(|entry| field.delimited(entry.as_bytes()));
            vec![entries.collect::<Vec<_>>().concat(), field.times(b"", room / 2)]
        }
        _ => Vec::new(),
    }
}

/// How often each message is sent to measure the cost of its refusal.
const TIMES: u32 = if cfg!(debug_assertions) { 1 } else { 20 };

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

#[tokio::test]
async fn no_field_makes_a_refusal_long() {
    let replica = Replica::shared().await;
    let (channel, root) = (replica.channel(), &replica.installation.root_secret);
    let (mut tried, mut longest, mut dearest) = (0, (0, String::new()), BTreeMap::new());
    for rpc in rpcs() {
        for field in &rpc.fields {
            for message in worst(field) {
                assert!(message.len() <= MESSAGE, "{}", message.len());
                let shown = format!("{} {}", rpc.name, field.name);
                let before = processor_time();
                let mut outcomes = Vec::new();
                for _ in 0..TIMES {
                    outcomes.push(call(&channel, root, &rpc.name, message.clone()).await);
                }
                let outcome = outcomes.pop().unwrap();
                let cost = processor_time().saturating_sub(before) / TIMES;
                let bytes = outcome.as_ref().map_or_else(length, Vec::len);
                // Any text in a secret has a verdict.
                if let Ok(answer) = &outcome {
                    assert!(field.name.ends_with("secret"), "{shown} was answered: {answer:?}");
                }
                assert!(bytes <= REFUSAL, "{shown}: {bytes} bytes");
                tried += 1;
                longest = longest.max((bytes, shown.clone()));
                let dearest = dearest.entry(rpc.name.clone()).or_insert((Duration::ZERO, String::new()));
                *dearest = (*dearest).clone().max((cost, field.name.clone()));
            }
        }
    }
    println!("{tried} messages; the longest refusal {longest:?}");
    for (rpc, (cost, field)) in dearest {
        println!("{rpc}: {cost:.2?} of processor, caller included, for {field}");
    }
    assert!(tried > 100, "{tried}");
}

/// The seconds of times and durations, each combined with each of the nanoseconds.
const SECONDS: [i64; 16] = [
    i64::MIN,
    -315_576_000_001,
    -315_576_000_000,
    -62_135_596_801,
    -62_135_596_800,
    -1,
    0,
    1,
    2_592_000,
    253_402_300_799,
    253_402_300_800,
    315_576_000_000,
    315_576_000_001,
    9_223_372_036_854,
    i64::MAX - 1,
    i64::MAX,
];
const NANOS: [i32; 9] =
    [i32::MIN, -1_000_000_000, -1, 0, 1, 999_999_000, 999_999_999, 1_000_000_000, i32::MAX];

/// Returns a message that lacks only the field under test.
async fn else_valid(replica: &Replica, rpc: &str) -> Vec<u8> {
    let token_id = async || created(&mut replica.root(), ordinary()).await.token.unwrap().id;
    match rpc {
        "CreateToken" => CreateTokenRequest { expiration: None, ..ordinary() }.encode_to_vec(),
        "UpdateToken" => {
            let update_mask = mask(&["expiration"]);
            UpdateTokenRequest { token_id: token_id().await, update_mask, ..Default::default() }
                .encode_to_vec()
        }
        "RotateToken" => {
            RotateTokenRequest { token_id: token_id().await, ..Default::default() }.encode_to_vec()
        }
        "ListTokens" => ListTokensRequest::default().encode_to_vec(),
        "ListTokenEvents" => ListTokenEventsRequest::default().encode_to_vec(),
        "GetUsage" => GetUsageRequest::default().encode_to_vec(),
        "UpdatePolicy" => {
            let policy = Some(Policy { expiration_required: true, ..Default::default() });
            UpdatePolicyRequest { policy, ..Default::default() }.encode_to_vec()
        }
        "CheckPolicy" => {
            let policy = Some(Policy { most_active_tokens_per_user: 1, ..Default::default() });
            CheckPolicyRequest { policy, ..Default::default() }.encode_to_vec()
        }
        "CreatePortalSession" => {
            CreatePortalSessionRequest { user_id: "ada".to_owned(), ..Default::default() }.encode_to_vec()
        }
        // Each time is in another limit, which lacks its name.
        "SetPlan" => SetPlanRequest { name: "free".to_owned(), ..Default::default() }.encode_to_vec(),
        other => panic!("{other} has a time: say here what else it needs"),
    }
}

#[track_caller]
fn answered(outcome: Result<Vec<u8>, Status>, shown: &str) -> bool {
    let Err(status) = outcome else { return true };
    let known = reason(&status);
    assert!(known.is_some() && status.code() != Code::Internal, "{shown}: {status:?}");
    false
}

#[tokio::test]
async fn no_time_or_duration_overflows() {
    let replica = Replica::start().await;
    let (channel, root) = (replica.channel(), &replica.installation.root_secret);
    let mut accepted = 0;
    for rpc in rpcs() {
        let times = [".google.protobuf.Timestamp", ".google.protobuf.Duration"];
        for field in rpc.fields.iter().filter(|field| times.contains(&&*field.type_name)) {
            let mut rest = else_valid(&replica, &rpc.name).await;
            for (seconds, nanos) in SECONDS.iter().flat_map(|&s| NANOS.iter().map(move |&n| (s, n))) {
                let shown = format!("{} {} {seconds} s {nanos} ns", rpc.name, field.name);
                let time = prost_types::Duration { seconds, nanos }.encode_to_vec();
                // A later field of a message replaces an earlier one, or is merged into it.
                let message = [&*rest, &field.delimited(&time)].concat();
                if !answered(call(&channel, root, &rpc.name, message).await, &shown) {
                    continue;
                }
                accepted += 1;
                // A token is rotated once.
                rest = else_valid(&replica, &rpc.name).await;
                if rpc.name == "UpdatePolicy" {
                    for (under, message) in [
                        ("CheckPolicy", vec![]),
                        ("EnforcePolicy", vec![]),
                        ("CreateToken", ordinary().encode_to_vec()),
                    ] {
                        answered(
                            call(&channel, root, under, message).await,
                            &format!("{under} after {shown}"),
                        );
                    }
                    let lenient =
                        UpdatePolicyRequest { policy: Some(Policy::default()), ..Default::default() };
                    assert!(answered(
                        call(&channel, root, "UpdatePolicy", lenient.encode_to_vec()).await,
                        &shown
                    ));
                }
            }
        }
    }
    assert!(accepted > 100, "{accepted}");
}

//! The service's trait and router, generated from `proto/tokend/v1/token_service.proto`; what Verify answers is written
//! from what the cache holds, not from messages.

#![expect(clippy::pedantic, unreachable_pub, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/server/tokend.v1.rs"));

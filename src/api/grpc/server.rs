//! The service's trait and router, generated from `proto/tokend/v1/token_service.proto`. Verify's
//! response type is encoded directly from the cache (see `reply`).

#![expect(clippy::pedantic, unreachable_pub, reason = "generated")]

tonic::include_proto!("tokend.v1");

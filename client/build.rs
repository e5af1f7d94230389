//! Compiles the contract in `proto/` to Rust for a client. `protox` parses it in pure Rust, so a
//! build needs no `protoc`.

use std::error::Error;

/// Messages that carry a secret or something as sensitive: they are generated without a `Debug`; the
/// one in `src/redact.rs` shows none of it.
const SECRET_MESSAGES: [&str; 6] = [
    "tokend.v1.CreateTokenRequest",
    "tokend.v1.CreateTokenResponse",
    "tokend.v1.RotateTokenRequest",
    "tokend.v1.RotateTokenResponse",
    "tokend.v1.RevokeTokenRequest",
    "tokend.v1.VerifyRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["tokend/v1/token_service.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).skip_debug(SECRET_MESSAGES).compile_fds(files)?;
    Ok(())
}

//! Compiles the contract in `proto/` to Rust for a client. `protox` parses it in pure Rust, so a
//! build needs no `protoc`.

use std::error::Error;

mod secret_messages;

use secret_messages::SECRET_MESSAGES;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["tokend/v1/token_service.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).skip_debug(SECRET_MESSAGES).compile_fds(files)?;
    Ok(())
}

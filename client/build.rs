//! Compiles the contract in `proto/` to Rust for a client. `protox` parses it in pure Rust, so a
//! build needs no `protoc`.

use std::path::PathBuf;
use std::{env, error::Error, fs};

use protox::Compiler;

mod redact;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = Compiler::new(["proto"])?;
    // Source info keeps the comments.
    let files = ["tokend/v1/token_service.proto", "tokend/v1/login_service.proto"];
    compiler.include_source_info(true).include_imports(true).open_files(files)?;
    let redacted = redact::redacted(&compiler.descriptor_pool());
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out_dir.join("redacted.rs"), redacted.code)?;
    tonic_prost_build::configure()
        .build_server(false)
        .skip_debug(redacted.messages)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

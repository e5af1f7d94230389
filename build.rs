//! Compiles the contract in `proto/` to the service's trait, and to the descriptor set that reflection serves;
//! its messages come from `client/`. Compiles what is used of others' contracts, in `third-party/`.
//!
//! Cargo runs it; `protox` parses the files in pure Rust, so a build needs no `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use protox::Compiler;

const INCLUDES: [&str; 1] = ["proto"];
const FILES: [&str; 2] = ["tokend/v1/token_service.proto", "tokend/v1/login_service.proto"];

/// Messages that the server writes by types of its own.
const REPLIES: [(&str, &str); 2] = [
    (".tokend.v1.VerifyResponse", "crate::api::grpc::reply::VerifyReply"),
    (".tokend.v1.VerifyStreamResponse", "crate::api::grpc::reply::VerifyStreamReply"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=third-party");
    println!("cargo:rerun-if-changed=build.rs");

    let mut compiler = Compiler::new(INCLUDES)?;
    // Source info keeps the comments: what a client reads when it asks reflection to describe.
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;

    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out_dir.join("tokend_descriptor.bin"), compiler.encode_file_descriptor_set())?;

    let mut server =
        tonic_prost_build::configure().build_client(false).extern_path(".tokend.v1", "crate::api::proto");
    for (message, reply) in REPLIES {
        server = server.extern_path(message, reply);
    }
    server.compile_fds(compiler.file_descriptor_set())?;

    let mut health = Compiler::new(["third-party"])?;
    health.include_source_info(true).open_file("grpc/health/v1/health.proto")?;
    fs::write(out_dir.join("health_descriptor.bin"), health.encode_file_descriptor_set())?;
    // tonic-health has the messages but not List.
    tonic_prost_build::configure()
        .extern_path(".grpc.health.v1.HealthCheckRequest", "::tonic_health::pb::HealthCheckRequest")
        .extern_path(".grpc.health.v1.HealthCheckResponse", "::tonic_health::pb::HealthCheckResponse")
        .compile_fds(health.file_descriptor_set())?;

    let mut envoy = Compiler::new(["third-party"])?;
    envoy.include_imports(true).open_file("envoy/service/auth/v3/authorization.proto")?;
    fs::write(out_dir.join("envoy_descriptor.bin"), envoy.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        // By hand: the credential is among its headers.
        .skip_debug(["envoy.service.auth.v3.HttpRequest"])
        .compile_fds(envoy.file_descriptor_set())?;
    Ok(())
}

//! Compiles `proto/` with protox, so that no machine needs protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files =
        protox::compile(["jobwatch/v1/job.proto", "jobwatch/v1/job_status_service.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("jobwatch.v1.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .bytes(".jobwatch.v1")
        .compile_fds(files)?;
    Ok(())
}

//! Compiles `proto/` with protox, so that no machine needs protoc.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use prost_types::FileDescriptorSet;
use protox::{
    Compiler,
    file::{ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver},
};

/// The messages that contain a `JobStatus`. The server has its own types for them, in
/// which the status is already encoded. It shares all other types with clients.
const WITH_STATUS: [&str; 5] = [
    "GetJobStatusResponse",
    "JobStatusResult",
    "BatchGetStatusesResponse",
    "WatchJobResponse",
    "WatchJobsResponse",
];

/// The commit that is built, for `--version`: `JOBWATCH_COMMIT` of the environment, else
/// what git says, else "unknown".
fn commit() -> String {
    println!("cargo:rerun-if-env-changed=JOBWATCH_COMMIT");
    if let Ok(commit) = env::var("JOBWATCH_COMMIT")
        && !commit.is_empty()
        && commit.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return commit;
    }
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    // Not what some repository around the sources says.
    let root = git(&["rev-parse", "--show-toplevel"]);
    let here = env::current_dir().and_then(fs::canonicalize).ok();
    if root.and_then(|root| fs::canonicalize(root).ok()) != here {
        return "unknown".to_owned();
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    // Not built anew for each commit, so that this may be an earlier one.
    if env::var("PROFILE").is_ok_and(|profile| profile != "release") {
        return format!("{commit}-debug");
    }
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    commit
}

/// `google/rpc/status.proto` and `google/rpc/error_details.proto`, under the names that they
/// have everywhere. The contract carries no copy: a second file of the same name, or of the
/// same messages under another name, breaks the programs that link both.
fn google_rpc() -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut set = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
    set.file.retain(|file| file.package() == "google.rpc");
    for file in &mut set.file {
        file.name = file.name.as_deref().map(|name| format!("google/rpc/{name}"));
    }
    Ok(set)
}

/// Compiles the contract. `names`: its files, and what else the set contains.
fn compile(names: &[&str]) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut files = ChainFileResolver::new();
    files.add(IncludeFileResolver::new("proto".into()));
    files.add(DescriptorSetFileResolver::new(google_rpc()?));
    files.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(files);
    compiler.include_source_info(true).include_imports(true).open_files(names)?;
    Ok(compiler.file_descriptor_set())
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rustc-env=JOBWATCH_COMMIT={}", commit());
    println!("cargo:rerun-if-changed=proto");
    let contract = ["jobwatch/v1/job.proto", "jobwatch/v1/job_status_service.proto"];
    let errors = ["google/rpc/status.proto", "google/rpc/error_details.proto"];
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let described = compile(&[&contract[..], &errors].concat())?;
    fs::write(out.join("jobwatch.v1.bin"), described.encode_to_vec())?;
    let files = compile(&contract)?;
    let configure = || {
        tonic_prost_build::configure()
            .extern_path(".google.rpc.Status", "::tonic_types::Status")
            .bytes(".jobwatch.v1")
    };
    configure().compile_fds(files.clone())?;

    let served = out.join("served");
    fs::create_dir_all(&served)?;
    let mut configure = configure()
        .build_client(false)
        .codec_path("crate::proto::Codec")
        .out_dir(served)
        .extern_path(".jobwatch.v1.JobStatus", "crate::snapshot::Shown");
    for file in files.file.iter().filter(|file| file.package() == "jobwatch.v1") {
        let messages = file.message_type.iter().filter_map(|message| message.name.as_deref());
        let names = messages.chain(file.enum_type.iter().filter_map(|list| list.name.as_deref()));
        for name in names.filter(|name| *name != "JobStatus" && !WITH_STATUS.contains(name)) {
            let path = format!("crate::proto::v1::{name}");
            configure = configure.extern_path(format!(".jobwatch.v1.{name}"), path);
        }
    }
    configure.compile_fds(files)?;
    Ok(())
}

//! Compiles `proto/` with protox, so that no machine needs protoc.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    OneofDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
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

/// `google/longrunning/operations.proto`, without its annotations for HTTP. As with the errors,
/// the contract carries no copy; numbers and types are those of the published interface.
fn google_longrunning() -> FileDescriptorProto {
    let any = ".google.protobuf.Any";
    let operation = DescriptorProto {
        oneof_decl: vec![OneofDescriptorProto { name: Some("result".into()), options: None }],
        ..message(
            "Operation",
            vec![
                text("name", 1),
                held("metadata", 2, any),
                field("done", 3, Type::Bool),
                FieldDescriptorProto { oneof_index: Some(0), ..held("error", 4, ".google.rpc.Status") },
                FieldDescriptorProto { oneof_index: Some(0), ..held("response", 5, any) },
            ],
        )
    };
    let list = vec![
        text("name", 4),
        text("filter", 1),
        field("page_size", 2, Type::Int32),
        text("page_token", 3),
        field("return_partial_success", 5, Type::Bool),
    ];
    let listed = vec![
        repeated(held("operations", 1, ".google.longrunning.Operation")),
        text("next_page_token", 2),
        repeated(text("unreachable", 3)),
    ];
    let wait = vec![text("name", 1), held("timeout", 2, ".google.protobuf.Duration")];
    let empty = ".google.protobuf.Empty";
    let operation_type = ".google.longrunning.Operation";
    FileDescriptorProto {
        name: Some("google/longrunning/operations.proto".into()),
        package: Some("google.longrunning".into()),
        dependency: ["protobuf/any", "protobuf/duration", "protobuf/empty", "rpc/status"]
            .map(|name| format!("google/{name}.proto"))
            .into(),
        message_type: vec![
            operation,
            message("GetOperationRequest", vec![text("name", 1)]),
            message("ListOperationsRequest", list),
            message("ListOperationsResponse", listed),
            message("CancelOperationRequest", vec![text("name", 1)]),
            message("DeleteOperationRequest", vec![text("name", 1)]),
            message("WaitOperationRequest", wait),
        ],
        service: vec![ServiceDescriptorProto {
            name: Some("Operations".into()),
            method: vec![
                method("ListOperations", ".google.longrunning.ListOperationsResponse"),
                method("GetOperation", operation_type),
                method("DeleteOperation", empty),
                method("CancelOperation", empty),
                method("WaitOperation", operation_type),
            ],
            options: None,
        }],
        syntax: Some("proto3".into()),
        ..FileDescriptorProto::default()
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.into()), field, ..DescriptorProto::default() }
}

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..FieldDescriptorProto::default()
    }
}

fn text(name: &str, number: i32) -> FieldDescriptorProto {
    field(name, number, Type::String)
}

fn held(name: &str, number: i32, kind: &str) -> FieldDescriptorProto {
    FieldDescriptorProto { type_name: Some(kind.into()), ..field(name, number, Type::Message) }
}

fn repeated(field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { label: Some(Label::Repeated.into()), ..field }
}

fn method(name: &str, output: &str) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.into()),
        input_type: Some(format!(".google.longrunning.{name}Request")),
        output_type: Some(output.into()),
        ..MethodDescriptorProto::default()
    }
}

/// Compiles the contract. `names`: its files, and what else the set contains.
fn compile(names: &[&str]) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut files = ChainFileResolver::new();
    files.add(IncludeFileResolver::new("proto".into()));
    let mut google = google_rpc()?;
    google.file.push(google_longrunning());
    files.add(DescriptorSetFileResolver::new(google));
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
    let operations = ["google/longrunning/operations.proto"];
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let described = compile(&[&contract[..], &errors, &operations].concat())?;
    fs::write(out.join("jobwatch.v1.bin"), described.encode_to_vec())?;
    let files = compile(&contract)?;
    let configure = || {
        tonic_prost_build::configure()
            .extern_path(".google.rpc.Status", "::tonic_types::Status")
            .bytes(".jobwatch.v1")
    };
    configure().compile_fds(files.clone())?;

    let longrunning = out.join("longrunning");
    fs::create_dir_all(&longrunning)?;
    configure().out_dir(longrunning).compile_fds(compile(&operations)?)?;

    let cluster = out.join("cluster");
    fs::create_dir_all(&cluster)?;
    tonic_prost_build::configure()
        .bytes(".jobwatch.cluster.v1")
        .out_dir(cluster)
        .compile_fds(compile(&["jobwatch/cluster/v1/cluster.proto", "jobwatch/cluster/v1/session.proto"])?)?;

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

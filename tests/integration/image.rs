//! The container image without a container engine: the program, user, entry point, arguments
//! and health check that the Dockerfile names, in an empty root with a read-only file system
//! and a network of its own.
//!
//! The program is the one that the tests were built with, or `JOBWATCH_IMAGE_BINARY`:
//! `make image-check` sets that to one that was built as the Dockerfile says.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jobwatch::simulators::credentials;
use tempfile::TempDir;

/// What an image of the base has, as far as jobwatch uses it: the libraries of Debian's libc6
/// and libgcc-s1, and certificates.
const LIBRARIES_OF_BASE: [&str; 6] = [
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
];
const BASE: &str = "gcr.io/distroless/cc-debian12:nonroot";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What the simulated vendor, outside of the root, listens on.
const VENDOR: &str = "127.0.0.1:8090";

/// The last stage of the Dockerfile.
struct Image {
    base: String,
    user: String,
    program: PathBuf,
    entry_point: Vec<String>,
    arguments: Vec<String>,
    health_check: Vec<String>,
}

impl Image {
    fn read() -> Self {
        let text = fs::read_to_string(root_of_sources().join("Dockerfile")).unwrap().replace("\\\n", " ");
        let (_, stage) = text.rsplit_once("\nFROM ").unwrap();
        let value = |instruction: &str| {
            let mut values =
                stage.lines().filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
            let value = values.next().unwrap_or_else(|| panic!("there is no {instruction}"));
            assert_eq!(values.next(), None, "{instruction} stands twice");
            value.trim().to_owned()
        };
        let list = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap();
        let copied = value("COPY --from=build");
        Self {
            base: stage.lines().next().unwrap().trim().to_owned(),
            user: value("USER"),
            program: copied.split_whitespace().nth(1).unwrap().into(),
            entry_point: list(&value("ENTRYPOINT")),
            arguments: list(&value("CMD")),
            health_check: list(value("HEALTHCHECK").split_once("CMD ").unwrap().1),
        }
    }

    fn configuration(&self) -> &Path {
        let at = self.arguments.iter().position(|argument| argument == "--config").unwrap();
        Path::new(&self.arguments[at + 1])
    }
}

fn root_of_sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn program() -> PathBuf {
    env::var_os("JOBWATCH_IMAGE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_jobwatch").into(), Into::into)
}

/// The libraries that `program` loads.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("ldd");
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

/// Copies `from` to the same place, or to `at`, below `root`.
fn copy(from: &Path, at: &Path, root: &Path) {
    let to = root.join(at.strip_prefix("/").unwrap());
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

/// A directory with the files of the image, and its configuration.
fn root_of_image(image: &Image, configuration: &str) -> TempDir {
    let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = program();
    copy(&program, &image.program, root.path());
    for library in libraries(&program) {
        copy(&library, &library, root.path());
    }
    copy(Path::new(CERTIFICATES), Path::new(CERTIFICATES), root.path());
    let file = root.path().join(image.configuration().strip_prefix("/").unwrap());
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, configuration).unwrap();
    fs::create_dir(root.path().join("proc")).unwrap();
    set_readable(root.path());
    root
}

/// The image's user is not the one who made the directory.
fn set_readable(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs as root of new namespaces: `$ROOT` is the image, `$IN_ROOT` what enters it.
const SCRIPT: &str = r#"
    ip link set lo up
    mount --bind "$ROOT" "$ROOT"
    mount -t proc proc "$ROOT/proc"
    mount -o remount,bind,ro "$ROOT"
    if (: > "$ROOT/file") 2>&-; then echo "the root is writable"; exit 1; fi

    exec {vendor}< <(exec "$SIMULATOR" simulate immuta --listen "$VENDOR")
    until read -r -u "$vendor" line && [[ $line == *"--help lists all"* ]]; do :; done

    exec {log}< <(exec $IN_ROOT "${SERVE[@]}" 2>&1)
    server=$!
    while read -r -u "$log" line; do
        echo "$line"
        if [[ $line == *"listening on"* ]]; then break; fi
    done
    $IN_ROOT "${HEALTH[@]}"
    echo "user $(stat -c %u:%g "/proc/$server")"
    echo "health check passed"
    $IN_ROOT "${PROGRAM[@]}" get --server http://127.0.0.1:50051 immuta/no-such-job && exit 1
    kill -TERM "$server"
    cat <&"$log"
    wait "$server"
    echo "server ended"
    if $IN_ROOT "${HEALTH[@]}"; then echo "an ended server is healthy"; exit 1; fi
    echo "health check failed as it should"
"#;

/// `NAME=(words)` for bash.
fn array(name: &str, words: &[String]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    format!("{name}=({})\n", quoted.join(" "))
}

#[test]
fn program_of_image_serves_from_empty_read_only_root() {
    let image = Image::read();
    let configuration = format!(
        "allow_inline_secrets = true\n\
         [server]\nlisten = \"127.0.0.1:50051\"\n\
         [backends.immuta]\nvendor = \"immuta\"\nbase_url = \"http://{VENDOR}\"\n\
         credentials = {{ api_key = {:?} }}\n",
        credentials::IMMUTA_API_KEY
    );
    let root = root_of_image(&image, &configuration);
    let has_privileges = rustix::process::geteuid().is_root();
    let in_root = if has_privileges {
        format!(
            "setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid chroot --userspec={} --groups= {}",
            image.user,
            root.path().display()
        )
    } else {
        format!("setpriv --no-new-privs chroot {}", root.path().display())
    };
    let mut serve = image.entry_point.clone();
    serve.extend(image.arguments.clone());
    let script = [
        "set -euo pipefail\n",
        &array("SERVE", &serve),
        &array("PROGRAM", &image.entry_point),
        &array("HEALTH", &image.health_check),
        SCRIPT,
    ];
    let mut command = Command::new("unshare");
    if !has_privileges {
        command.arg("--map-root-user");
    }
    let done = command
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["timeout", "--kill-after=5", "120", "bash", "-c", &script.concat()])
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap())
        .env("ROOT", root.path())
        .env("IN_ROOT", in_root)
        .env("SIMULATOR", env!("CARGO_BIN_EXE_jobwatch"))
        .env("VENDOR", VENDOR)
        .stdin(Stdio::null())
        .output()
        .expect("unshare, of util-linux");
    let output = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{output}{errors}");
    assert!(
        errors.contains("JOB_NOT_FOUND") || errors.contains("does not know this job"),
        "{output}{errors}"
    );
    assert!(
        output.contains("health check passed") && output.contains("health check failed as it should"),
        "{output}"
    );
    if has_privileges {
        assert!(output.contains(&format!("user {}", image.user)), "{output}");
    }
}

#[test]
fn program_of_image_needs_only_libraries_of_its_base() {
    let image = Image::read();
    assert_eq!(image.base, BASE, "compare LIBRARIES_OF_BASE with the new base");
    let libraries = libraries(&program());
    let names: BTreeSet<_> =
        libraries.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    let missing: Vec<_> = names.iter().filter(|name| !LIBRARIES_OF_BASE.contains(name)).collect();
    assert!(!names.is_empty() && missing.is_empty(), "the base has no {missing:?}");
}

#[test]
fn image_runs_as_unprivileged_user_without_shell() {
    let image = Image::read();
    let (user, group) = image.user.split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    let program = image.program.to_str().unwrap();
    assert_eq!(image.entry_point, [program]);
    assert_eq!(image.health_check[0], program);
    assert_eq!(image.arguments[0], "serve");
}

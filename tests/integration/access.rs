//! Callers see the backends that their policies allow, and nothing of the others.

use std::{
    cell::{Cell, RefCell},
    sync::{Arc, Mutex},
};

use jobwatch::{
    access::{generate_token, hash_token},
    config::Config,
    proto::v1::{
        AddWatch, BatchGetStatusesRequest, DownloadArtifactRequest, JobRef, ListBackendsRequest,
        WatchJobsRequest, watch_jobs_request, watch_jobs_response,
    },
    server::{ConfigSource, Load},
    simulators::{Plan, Simulator, Vendor},
};
use proptest::{prelude::*, test_runner::TestRunner};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::{process::Command, sync::mpsc};
use tonic::{Code, Request, Status};

use crate::harness::*;

/// Callers `a` and `b`. Both may read `shared`; `a` may also read and download at `only-a`,
/// and `b` at `only-b`.
struct TwoCallers {
    gateway: Gateway,
    simulators: [Simulator; 3],
    tokens: [String; 2],
    /// The text of the configuration that the next reload takes.
    configured: Arc<Mutex<String>>,
    requests: mpsc::Sender<()>,
    reloads: Cell<usize>,
}

const NAMES: [&str; 3] = ["shared", "only-a", "only-b"];

/// Jobs that a call may name after an even number of reloads; one less after an odd one.
const BATCH: usize = 1000;

fn is_even(reloads: usize) -> bool {
    reloads.is_multiple_of(2)
}

fn config(simulators: &[Simulator; 3], tokens: &[String; 2], allowed: Allowed, reloads: usize) -> String {
    let hashes = tokens.each_ref().map(|token| hash_token(token));
    let [a, b] = allowed.map(|allowed| {
        let names: Vec<String> = NAMES
            .iter()
            .zip(allowed)
            .filter(|(_, allowed)| *allowed)
            .map(|(name, _)| format!("{name:?}, "))
            .collect();
        names.concat()
    });
    let sections = format!(
        r#"
        [limits]
        batch_size = {}
        [access.tokens]
        a.sha256 = ["{}"]
        b.sha256 = ["{}"]
        [[access.policies]]
        principals = ["token:a"]
        backends = [{a}"missing-a"]
        rights = ["read", "download"]
        [[access.policies]]
        principals = ["token:b"]
        backends = [{b}"missing-b"]
        "#,
        BATCH - usize::from(!is_even(reloads)),
        hashes[0],
        hashes[1]
    );
    let backends = simulators.iter().zip(NAMES).map(|(simulator, name)| Backend::of(simulator).named(name));
    config_text(&sections, backends)
}

/// Which backends each of the callers may use.
type Allowed = [[bool; 3]; 2];

const ALLOWED: Allowed = [[true, true, false], [true, false, true]];

impl TwoCallers {
    async fn start() -> Self {
        let simulators = [
            simulator(Vendor::Immuta).await,
            simulator(Vendor::Claret).await,
            simulator(Vendor::Immuta).await,
        ];
        let tokens = [generate_token(), generate_token()];
        let config = config(&simulators, &tokens, ALLOWED, 0);
        let (requests, receiver) = mpsc::channel(1);
        let configured = Arc::new(Mutex::new(config.clone()));
        let load: Load = Arc::new({
            let configured = Arc::clone(&configured);
            move || Config::parse(&configured.lock().unwrap(), [])
        });
        let source = ConfigSource { load, files: Vec::new(), requests: receiver };
        let gateway = Gateway::start_reloading(&config, source).await;
        Self { gateway, simulators, tokens, configured, requests, reloads: Cell::new(0) }
    }

    /// Changes what the callers may use. Returns when that is in effect.
    async fn reload(&self, allowed: Allowed) {
        let reloads = self.reloads.get() + 1;
        self.reloads.set(reloads);
        *self.configured.lock().unwrap() = config(&self.simulators, &self.tokens, allowed, reloads);
        self.requests.send(()).await.unwrap();
        let client = self.gateway.client();
        let request = batch_request((0..BATCH).map(|_| job("no-backend", "1")));
        guard(async {
            // The number of jobs that a call may name changes with each reload.
            while batch(&client, self.request(0, request.clone())).await.is_ok() != is_even(reloads) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// A request of one of the callers.
    fn request<T>(&self, caller: usize, message: T) -> Request<T> {
        with_token(message, &self.tokens[caller])
    }

    fn start_job(&self, backend: usize, plan: Plan) -> JobRef {
        job(NAMES[backend], &self.simulators[backend].start_job(plan).id)
    }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// What each RPC answers a caller about a job: for each the error's whole text, or "OK".
async fn outcomes(callers: &TwoCallers, caller: usize, job: &JobRef) -> Vec<String> {
    let client = callers.gateway.client();
    let text = |outcome: Result<(), Status>| match outcome {
        Ok(()) => "OK".to_owned(),
        Err(status) => {
            let error = decode_error(&status);
            format!("{:?} {} {} {:?}", error.code, error.message, error.reason, error.metadata)
        }
    };
    let get = get_status(&client, callers.request(caller, get_request(job))).await.map(drop);
    let elements = batch(&client, callers.request(caller, batch_request([job.clone()]))).await.unwrap();
    let element = elements.into_iter().next().unwrap().map(drop);
    let watch = Watch::open(&client, callers.request(caller, watch_request(job))).await.map(drop);
    let add = AddWatch { watch_id: 7, watch: Some(watch_request(job)) };
    let add = WatchJobsRequest { request: Some(watch_jobs_request::Request::Add(add)) };
    let open = tokio_stream::iter([add]);
    let events = guard(client.clone().watch_jobs(callers.request(caller, open))).await.unwrap();
    let first = guard(events.into_inner().message()).await.unwrap().unwrap().outcome.unwrap();
    let added = match first {
        watch_jobs_response::Outcome::Event(_) => Ok(()),
        watch_jobs_response::Outcome::End(end) | watch_jobs_response::Outcome::Rejected(end) => {
            Err(from_message(&end))
        }
    };
    let download = DownloadArtifactRequest {
        job: Some(job.clone()),
        artifact_id: "jobwatch:vendor_payload".to_owned(),
        ..Default::default()
    };
    let download = guard(client.clone().download_artifact(callers.request(caller, download))).await.map(drop);
    [get, element, watch, added, download].into_iter().map(text).collect()
}

#[tokio::test]
async fn forbidden_backend_cannot_be_told_from_a_missing_one_in_any_call() {
    let callers = TwoCallers::start().await;
    let private = callers.start_job(2, Plan::default());
    let missing = job("only-c", &private.job_id);
    let forbidden = outcomes(&callers, 0, &private).await;
    let unknown = outcomes(&callers, 0, &missing).await;
    for (forbidden, unknown) in forbidden.iter().zip(&unknown) {
        assert!(forbidden.starts_with("PermissionDenied"), "{forbidden}");
        assert_eq!(*forbidden, unknown.replace("only-c", "only-b"));
    }
    // A name that the caller may use says what is wrong with it.
    let allowed = outcomes(&callers, 0, &job("missing-a", "1")).await;
    assert!(allowed.iter().all(|text| text.starts_with("NotFound")), "{allowed:?}");
}

#[tokio::test]
async fn right_to_download_is_not_the_right_to_read() {
    let callers = TwoCallers::start().await;
    let shared = callers.start_job(0, Plan::default());
    let codes = |outcomes: Vec<String>| {
        outcomes.into_iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(codes(outcomes(&callers, 0, &shared).await), ["OK", "OK", "OK", "OK", "OK"]);
    assert_eq!(codes(outcomes(&callers, 1, &shared).await), ["OK", "OK", "OK", "OK", "PermissionDenied"]);
}

#[tokio::test]
async fn call_without_valid_credentials_is_unauthenticated() {
    let callers = TwoCallers::start().await;
    let client = callers.gateway.client();
    let shared = callers.start_job(0, Plan::default());
    let refused = get(&client, &shared).await.unwrap_err();
    assert_eq!(code_and_reason(&refused), (Code::Unauthenticated, "CALLER_UNAUTHENTICATED".into()));
    let request = with_token(get_request(&shared), &generate_token());
    let refused = get_status(&client, request).await.unwrap_err();
    assert_eq!(code_and_reason(&refused), (Code::Unauthenticated, "CALLER_UNAUTHENTICATED".into()));
    let refused = guard(client.clone().list_backends(ListBackendsRequest {})).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn calls_beyond_a_policys_rate_are_refused_with_the_time_to_wait() {
    let simulator = simulator(Vendor::Immuta).await;
    let token = generate_token();
    let sections = format!(
        "[access.tokens.a]\nsha256 = [\"{}\"]\n[[access.policies]]\nprincipals = [\"*\"]\ncalls_per_second = 1\nwatches = 1",
        hash_token(&token)
    );
    let gateway = Gateway::start_with(&sections, [Backend::of(&simulator)]).await;
    let client = gateway.client();
    // A machine that takes a second for each call refuses none.
    for _ in 0..1000 {
        let listed = guard(client.clone().list_backends(with_token(ListBackendsRequest {}, &token))).await;
        if let Err(refused) = listed {
            let error = decode_error(&refused);
            assert_eq!((error.code, &*error.reason), (Code::ResourceExhausted, "RATE_LIMITED"));
            assert!(error.retry_delay().is_some_and(|delay| !delay.is_zero()));
            return;
        }
    }
    panic!("no call was refused");
}

#[tokio::test]
async fn watches_of_a_principal_are_bounded_by_its_policy_over_all_its_connections() {
    let simulator = simulator(Vendor::Immuta).await;
    let tokens = [generate_token(), generate_token()];
    let sections = format!(
        "[access.tokens]\na.sha256 = [\"{}\"]\nb.sha256 = [\"{}\"]\n[[access.policies]]\nprincipals = [\"*\"]\nwatches = 1",
        hash_token(&tokens[0]),
        hash_token(&tokens[1])
    );
    let gateway = Gateway::start_with(&sections, [Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let open = async |token: &str| {
        let mut watch = Watch::open(&gateway.client(), with_token(watch_request(&job), token)).await?;
        watch.next().await.map(|_| watch)
    };
    let _first = open(&tokens[0]).await.unwrap();
    let refused = open(&tokens[0]).await.unwrap_err();
    assert_eq!(code_and_reason(&refused), (Code::ResourceExhausted, "TOO_MANY_WATCHES".into()));
    open(&tokens[1]).await.unwrap();
}

/// A call of a caller about a backend.
#[derive(Clone, Debug)]
enum Call {
    Get {
        full: bool,
    },
    Batch,
    Watch,
    ResumeWithTheOthersToken,
    List,
    /// The caller's watch stays open.
    KeepWatching,
    /// A reload changes what the callers may use.
    Reload {
        shared: [bool; 2],
        own: [bool; 2],
    },
}

fn calls() -> impl Strategy<Value = Vec<(usize, usize, Call)>> {
    let call = prop_oneof![
        any::<bool>().prop_map(|full| Call::Get { full }),
        Just(Call::Batch),
        Just(Call::Watch),
        Just(Call::ResumeWithTheOthersToken),
        Just(Call::List),
        Just(Call::KeepWatching),
        any::<([bool; 2], [bool; 2])>().prop_map(|(shared, own)| Call::Reload { shared, own }),
    ];
    proptest::collection::vec((0..2_usize, 0..3_usize, call), 1..20)
}

/// Makes one call, and returns everything that the caller got to see.
async fn seen(callers: &TwoCallers, caller: usize, job: &JobRef, call: &Call, token: &mut String) -> String {
    let client = callers.gateway.client();
    match call {
        Call::Get { full: all } => {
            let request = if *all { full(job) } else { get_request(job) };
            format!("{:?}", get_status(&client, callers.request(caller, request)).await)
        }
        Call::Batch => {
            let request =
                BatchGetStatusesRequest { jobs: vec![job.clone(), job.clone()], ..Default::default() };
            format!("{:?}", batch(&client, callers.request(caller, request)).await)
        }
        Call::Watch | Call::ResumeWithTheOthersToken => {
            let mut request = watch_request(job);
            if let Call::ResumeWithTheOthersToken = call {
                request.resume_token.clone_from(token);
                request.heartbeat_interval = Some(proto_ms(10));
            }
            match Watch::open(&client, callers.request(caller, request)).await {
                Ok(mut watch) => {
                    let event = watch.next().await;
                    token.clone_from(&watch.token);
                    format!("{event:?}")
                }
                Err(status) => format!("{status:?}"),
            }
        }
        Call::List => {
            let request = callers.request(caller, ListBackendsRequest {});
            format!("{:?}", guard(client.clone().list_backends(request)).await.unwrap().into_inner())
        }
        Call::KeepWatching | Call::Reload { .. } => unreachable!("it shows nothing"),
    }
}

#[test]
fn no_sequence_of_calls_shows_a_caller_what_only_another_may_see() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let callers = runtime.block_on(TwoCallers::start());
    let jobs: Vec<JobRef> = (0..3).map(|backend| callers.start_job(backend, Plan::default())).collect();
    let lasting = ["active", "pending", "active"].into_iter().enumerate();
    let lasting: Vec<JobRef> =
        lasting.map(|(backend, word)| callers.start_job(backend, Plan::fixed(word))).collect();
    let (token, allowed_calls) = (RefCell::new(String::new()), RefCell::new([0, 0]));
    let ended = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, ..Default::default() });
    runner
        .run(&calls(), |sequence| {
            // Each watch with what its caller could do when it began.
            let (mut allowed, mut open) = (ALLOWED, Vec::<(usize, [bool; 3], Watch)>::new());
            runtime.block_on(callers.reload(allowed));
            for (caller, backend, call) in sequence {
                let job = &jobs[backend];
                match call {
                    Call::Reload { shared: [a, b], own: [own_a, own_b] } => {
                        allowed = [[a, own_a, false], [b, false, own_b]];
                        runtime.block_on(callers.reload(allowed));
                        for (caller, before, mut watch) in std::mem::take(&mut open) {
                            if (0..3).all(|backend| allowed[caller][backend] >= before[backend]) {
                                open.push((caller, before, watch));
                                continue;
                            }
                            let (_, end) = runtime.block_on(guard(watch.rest()));
                            let end = end.unwrap_err();
                            prop_assert_eq!(code_and_reason(&end).1, "ACCESS_CHANGED");
                            ended.set(ended.get() + 1);
                        }
                    }
                    Call::KeepWatching => {
                        let request = callers.request(caller, watch_request(&lasting[backend]));
                        let watch = runtime.block_on(Watch::open(&callers.gateway.client(), request));
                        prop_assert_eq!(watch.is_ok(), allowed[caller][backend]);
                        open.extend(watch.map(|watch| (caller, allowed[caller], watch)));
                    }
                    _ => {
                        let seen =
                            runtime.block_on(seen(&callers, caller, job, &call, &mut token.borrow_mut()));
                        if matches!(call, Call::List) {
                            for (name, allowed) in NAMES.iter().zip(allowed[caller]) {
                                prop_assert_eq!(seen.contains(name), allowed, "{}", seen);
                            }
                        } else if allowed[caller][backend] {
                            prop_assert!(!seen.contains("PermissionDenied"), "{seen}");
                            allowed_calls.borrow_mut()[caller] += 1;
                        } else {
                            prop_assert!(
                                seen.contains("PermissionDenied") || seen.contains("code: 7"),
                                "{seen}"
                            );
                            prop_assert!(!seen.contains("vendor_state"), "{seen}");
                        }
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(allowed_calls.borrow().iter().all(|calls| *calls > 0) && ended.get() > 0);
    runtime.block_on(callers.gateway.stop());
}

/// PEM files of a certificate authority, of a server for localhost, and of a client.
struct Pki {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self { folder: tempfile::tempdir().unwrap(), authority };
        std::fs::write(pki.path("ca.pem"), pki.authority.pem()).unwrap();
        pki.issue("server", vec![SanType::DnsName("localhost".try_into().unwrap())]);
        pki
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn issue(&self, name: &str, names: Vec<SanType>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn client_certificate_names_its_caller_for_the_command_line_too() {
    let pki = Pki::new();
    pki.issue("trusted", vec![SanType::URI("spiffe://td/jobs".try_into().unwrap())]);
    pki.issue("stranger", vec![SanType::DnsName("trusted.example".try_into().unwrap())]);
    let simulator = simulator(Vendor::Immuta).await;
    let sections = format!(
        "[server]\ntls = {{ cert = {:?}, key = {:?}, client_ca = {:?} }}\n[access]\ncertificates = true\n\
         policies = [{{ principals = [\"spiffe://td/*\"] }}]",
        pki.path("server.pem"),
        pki.path("server.key"),
        pki.path("ca.pem")
    );
    let gateway = Gateway::start_with(&sections, [Backend::of(&simulator)]).await;
    let job = simulator.start_job(Plan::fixed("active"));
    let get = async |identity: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
        command.args(["get", &format!("immuta/{}", job.id), "--json"]);
        command.args(["--server", &format!("https://localhost:{}", gateway.address.port())]);
        command.args(["--ca", &pki.path("ca.pem"), "--cert", &pki.path(&format!("{identity}.pem"))]);
        command.args(["--key", &pki.path(&format!("{identity}.key"))]);
        let output = guard(command.output()).await.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let output = get("trusted").await;
    assert!(output.contains("\"vendorState\":\"active\""), "{output}");
    let output = get("stranger").await;
    assert!(output.contains("BACKEND_NOT_ALLOWED"), "{output}");
}

#[tokio::test]
async fn new_token_is_accepted_from_the_command_line_and_not_sent_in_plain_text() {
    let run = async |args: &[&str], token: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
        command.args(args).env_remove("JOBWATCH_TOKEN");
        if let Some(token) = token {
            command.env("JOBWATCH_TOKEN", token);
        }
        let output = guard(command.output()).await.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, printed) = run(&["token", "new", "ci"], None).await;
    assert_eq!(code, Some(0));
    let token = printed.split_whitespace().find(|word| word.starts_with("jobwatch_")).unwrap();
    // What is printed for the configuration can be pasted there: the token is in a comment.
    let sections = format!("{printed}\n[[access.policies]]\nprincipals = [\"token:ci\"]");
    let simulator = simulator(Vendor::Immuta).await;
    let gateway = Gateway::start_with(&sections, [Backend::of(&simulator)]).await;
    let job = format!("immuta/{}", simulator.start_job(Plan::fixed("active")).id);
    let server = gateway.address.to_string();
    let get = ["get", &job, "--json", "--server", &server];
    let (code, printed) = run(&get, Some(token)).await;
    assert_eq!(code, Some(4), "{printed}");
    let (code, printed) = run(&get, None).await;
    assert_eq!(code, Some(3));
    assert!(printed.contains("CALLER_UNAUTHENTICATED"), "{printed}");
    let elsewhere = ["get", &job, "--json", "--server", "http://gateway.example:50051"];
    let (code, printed) = run(&elsewhere, Some(token)).await;
    assert_eq!(code, Some(2));
    assert!(printed.contains("unencrypted") && !printed.contains(token), "{printed}");
}

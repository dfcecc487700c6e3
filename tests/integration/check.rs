//! `jobwatch check --connect` tells apart what can be wrong, and says what to do.

use std::{io::Write, process::Stdio, sync::Arc};

use jobwatch::simulators::{Effect, Fault, Vendor, credentials};
use rcgen::{CertificateParams, KeyPair};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
    task::AbortHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

use crate::harness::*;

/// Runs `jobwatch check --connect`. Returns success and the output.
async fn check(config: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(config.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
    command.args(["check", "--connect", "--config"]).arg(file.path());
    command.env_clear().envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = guard(command.output()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// The output about a backend that does not work; it holds all of `expected`.
async fn fails(backend: Backend, environment: &[(&str, &str)], expected: &[&str]) {
    let about = format!("{backend:?}");
    let (is_ok, output) = check(&config_text("", [backend]), environment).await;
    assert!(!is_ok, "{about}: {output}");
    for text in expected {
        assert!(output.contains(text), "{about}: {text:?} is missing in {output}");
    }
    for secret in
        [credentials::IMMUTA_API_KEY, credentials::CLARET_PASSWORD, credentials::DATASAUR_CLIENT_SECRET]
    {
        assert!(!output.contains(secret), "{output}");
    }
}

/// The method and path that a vendor is asked first.
fn first_request(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Immuta => "POST /jobs/statuses",
        Vendor::Kinetica => "POST /get/job",
        Vendor::Claret => "POST /demo/api/v1/tokens/create",
        Vendor::Datasaur => "POST /api/oauth/token",
    }
}

#[tokio::test]
async fn working_backend_is_ok() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let (is_ok, output) = check(&config_text("", [Backend::of(&simulator)]), &[]).await;
        assert!(is_ok && output.contains("OK"), "{output}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_with_request_status_and_key() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        simulator.reject_credentials(true);
        let request = format!("{}: HTTP 40", first_request(vendor));
        let expected = ["wrong credentials", &request, "replace credentials.", "of the configuration file"];
        fails(Backend::of(&simulator), &[], &expected).await;
    }
}

#[tokio::test]
async fn address_without_a_listener_or_a_name_is_a_wrong_address() {
    for vendor in Vendor::ALL {
        fails(Backend::dead(vendor).await, &[], &["wrong address", first_request(vendor), "nothing listens"])
            .await;
        let nameless = Backend::at(vendor, "http://no-such-vendor.invalid");
        fails(nameless, &[], &["wrong address", "the host name is unknown"]).await;
    }
}

#[tokio::test]
async fn address_that_does_not_answer_is_a_wrong_address() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let backend = Backend::at(Vendor::Immuta, url).poll("timeout", "\"100ms\"");
    fails(backend, &[], &["wrong address", "POST /jobs/statuses", "check base_url"]).await;
}

#[tokio::test]
async fn path_too_much_is_a_wrong_path() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let request = first_request(vendor).replace("POST ", "POST /v2");
        let expected = ["wrong path", &*format!("{request}: HTTP 404"), "base_url has a path"];
        fails(Backend::of(&simulator).path("/v2"), &[], &expected).await;
    }
}

#[tokio::test]
async fn unknown_tenant_is_a_wrong_tenant() {
    let simulator = simulator(Vendor::Claret).await;
    let config = config_text("", [Backend::of(&simulator)]);
    let config = config.replace("tenant = \"demo\"", "tenant = \"other\"");
    let (is_ok, output) = check(&config, &[]).await;
    assert!(!is_ok && output.contains("wrong tenant"), "{output}");
    assert!(output.contains("POST /other/api/v1/tokens/create: HTTP 404"), "{output}");
    assert!(output.contains("check tenant, which is \"other\""), "{output}");
}

#[tokio::test]
async fn redirect_is_told_with_its_target() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let path = first_request(vendor).strip_prefix("POST ").unwrap();
        let https = format!("https://vendor.example{path}");
        simulator.inject(Fault::new(Effect::Redirect(format!("{https}?code=hush"))));
        let target = format!("it redirects to {https}; write base_url = \"https://vendor.example\"");
        let request = first_request(vendor);
        fails(Backend::of(&simulator), &[], &["wrong address", request, "HTTP 302", &target]).await;
    }
}

#[tokio::test]
async fn page_in_place_of_the_api_is_told() {
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        simulator.inject(Fault::new(Effect::Html(200)));
        let expected = [first_request(vendor), "HTTP 200", "an HTML page came, not the API"];
        fails(Backend::of(&simulator), &[], &expected).await;
    }
}

/// Accepts TLS connections with a certificate of its own, until it is dropped.
struct TlsVendor {
    port: u16,
    file: NamedTempFile,
    task: AbortHandle,
}

impl Drop for TlsVendor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TlsVendor {
    async fn start(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = config.with_single_cert(vec![certificate.der().clone()], key.into()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // The clients of these tests leave during the handshake.
                let _ = acceptor.accept(stream).await;
            }
        });
        Self { port, file, task: task.abort_handle() }
    }

    fn backend(&self, scheme: &str) -> Backend {
        Backend::at(Vendor::Immuta, format!("{scheme}://localhost:{}", self.port))
    }

    fn trust(&self) -> [(&'static str, &str); 1] {
        [("SSL_CERT_FILE", self.file.path().to_str().unwrap())]
    }
}

#[tokio::test]
async fn each_tls_failure_is_told_apart() {
    let good = TlsVendor::start("localhost", |_| {}).await;
    let other = TlsVendor::start("another.example", |_| {}).await;
    let trust_in_another = [("SSL_CERT_FILE", other.file.path().to_str().unwrap())];
    let untrusted = ["TLS failure", "POST /jobs/statuses", "is not trusted"];
    fails(good.backend("https"), &trust_in_another, &untrusted).await;
    fails(other.backend("https"), &other.trust(), &["TLS failure", "certificate is for another name"]).await;
    let expired = TlsVendor::start("localhost", |params| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    })
    .await;
    fails(expired.backend("https"), &expired.trust(), &["TLS failure", "certificate has expired"]).await;
    let future = TlsVendor::start("localhost", |params| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    })
    .await;
    fails(future.backend("https"), &future.trust(), &["TLS failure", "is not valid yet"]).await;
    fails(good.backend("http"), &[], &["TLS failure", "write https:// in base_url"]).await;
}

#[tokio::test]
async fn port_without_tls_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let trust = TlsVendor::start("localhost", |_| {}).await;
    let backend = Backend::at(Vendor::Immuta, url);
    fails(backend, &trust.trust(), &["TLS failure", "write http:// in base_url"]).await;
    serving.abort();
}

#[tokio::test]
async fn odd_secret_is_told_without_its_content() {
    let simulator = simulator(Vendor::Kinetica).await;
    let backend = Backend::of(&simulator).credentials("{ username = \"admin\", password = { env = \"P\" } }");
    let (is_ok, output) = check(&config_text("", [backend]), &[("P", "\"hush\"")]).await;
    assert!(!is_ok && output.contains("is the variable P, which begins and ends with a quote"), "{output}");
    assert!(
        output.contains("wrong credentials") && output.contains("credentials.password from the variable P")
    );
    assert!(!output.contains("hush"), "{output}");
}

#[tokio::test]
async fn keys_of_an_issuer_that_can_not_be_used_are_told() {
    let mut keys = NamedTempFile::new().unwrap();
    keys.write_all(b"{\"keys\":[]}").unwrap();
    let access = format!(
        "[access.jwt]\nissuer = \"https://a\"\naudience = \"b\"\nalgorithms = [\"RS256\"]\njwks_file = {:?}\n\
         [[access.policies]]\nprincipals = [\"*\"]\nrights = [\"read\"]\n",
        keys.path()
    );
    let simulator = simulator(Vendor::Kinetica).await;
    let (is_ok, output) = check(&config_text(&access, [Backend::of(&simulator)]), &[]).await;
    assert!(!is_ok, "{output}");
    let expected =
        format!("error: access.jwt.jwks_file is the file {}: it holds no public key", keys.path().display());
    assert!(output.contains(&expected), "{output}");
}

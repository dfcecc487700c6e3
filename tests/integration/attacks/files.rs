//! TLS files that change or can't be used; and plaintext.

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::*;

/// An authority, and the files of a server.
pub(super) struct Files {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { dir: tempfile::tempdir().unwrap(), authority };
        files.renew(&Files::params());
        files.write("ca.pem", &files.authority.pem());
        files
    }

    fn params() -> CertificateParams {
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let new = self.path("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    fn signed(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.authority).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// Replaces the server's certificate and key.
    fn renew(&self, params: &CertificateParams) {
        let (cert, key) = self.signed(params);
        self.write("key.pem", &key);
        self.write("cert.pem", &cert);
    }

    pub(super) fn section(&self, more: &str) -> String {
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| self.path(name));
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[server.tls]\ncert = '{}'\nkey = '{}'\n{more}\n",
            cert.display(),
            key.display()
        )
    }

    pub(super) fn tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.authority.pem()))
    }

    pub(super) fn channel(address: SocketAddr, tls: ClientTlsConfig) -> Channel {
        let url = format!("https://localhost:{}", address.port());
        Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap().connect_lazy()
    }

    /// Connects as a client that trusts the authority.
    pub(super) async fn connect(&self, stream: TcpStream) -> tokio_rustls::client::TlsStream<TcpStream> {
        use tokio_rustls::{TlsConnector, rustls};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(std::sync::Arc::new(config));
        connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
    }

    /// The serial number of the certificate that a new connection is shown.
    async fn serial(&self, address: SocketAddr) -> Vec<u8> {
        let stream = self.connect(TcpStream::connect(address).await.unwrap()).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

async fn list(channel: Channel) -> Result<(), tonic::Status> {
    guard(Client::new(channel).list_backends(jobwatch::proto::v1::ListBackendsRequest {})).await.map(|_| ())
}

#[tokio::test]
async fn new_certificate_is_used_for_new_connections() {
    let files = Files::new();
    let gateway = Gateway::start_with(&files.section(""), [Backend::dead(Vendor::Claret).await]).await;
    let open = Files::channel(gateway.address, files.tls());
    list(open.clone()).await.unwrap();
    let first = files.serial(gateway.address).await;
    // A bad file leaves the old one in use.
    let good = fs::read_to_string(files.path("cert.pem")).unwrap();
    files.write("cert.pem", "nothing");
    assert_eq!(files.serial(gateway.address).await, first);
    files.write("cert.pem", &good);
    files.renew(&Files::params());
    let replaced = async { while files.serial(gateway.address).await == first {} };
    guard(replaced).await;
    list(open).await.expect("an open connection goes on");
}

#[tokio::test]
async fn revoked_client_certificate_is_refused() {
    let files = Files::new();
    let client = |serial: u64| {
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let (cert, key) = files.signed(&params);
        files.tls().identity(Identity::from_pem(cert, key))
    };
    let revoke = |serials: &[u64]| {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        files.write("crl.pem", &list.signed_by(&files.authority).unwrap().pem().unwrap());
    };
    revoke(&[7]);
    let more = format!("client_ca = {:?}\nclient_crl = {:?}", files.path("ca.pem"), files.path("crl.pem"));
    let gateway = Gateway::start_with(&files.section(&more), [Backend::dead(Vendor::Claret).await]).await;
    let (good, revoked) = (client(8), client(7));
    list(Files::channel(gateway.address, good.clone())).await.unwrap();
    list(Files::channel(gateway.address, revoked)).await.unwrap_err();
    list(Files::channel(gateway.address, files.tls())).await.expect_err("it has no certificate");
    revoke(&[7, 8]);
    let refused = async { while list(Files::channel(gateway.address, good.clone())).await.is_ok() {} };
    guard(refused).await;
}

#[tokio::test]
async fn tls_file_that_cannot_be_used_is_named() {
    let files = Files::new();
    let good = files.section("");
    let (other_cert, other_key) = files.signed(&Files::params());
    let from_to = |from: i32, to: i32| {
        let mut params = Files::params();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        files.signed(&params)
    };
    let (expired, expired_key) = from_to(2000, 2010);
    let (early, early_key) = from_to(2100, 2110);
    let check = async || {
        let text = config_text(&good, [Backend::at(Vendor::Claret, "http://127.0.0.1:1")]);
        fs::write(files.path("jobwatch.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
        command.arg("check").arg("--config").arg(files.path("jobwatch.toml")).env_clear();
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = check().await;
    assert_eq!(code, Some(0), "{text}");
    for (cert, key, named, problem) in [
        (other_cert.as_str(), None, "server.tls.key", "does not fit the certificate"),
        ("", None, "server.tls.cert", "is empty"),
        ("junk", None, "server.tls.cert", "has no certificate in PEM"),
        (&other_cert, Some(""), "server.tls.key", "is empty"),
        (&other_cert, Some("junk"), "server.tls.key", "has no private key in PEM"),
        (&expired, Some(&expired_key), "server.tls.cert", "has expired on "),
        (&early, Some(&early_key), "server.tls.cert", "is not valid before "),
    ] {
        files.write("cert.pem", cert);
        if let Some(key) = key {
            files.write("key.pem", key);
        }
        let (code, text) = check().await;
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(named) && text.contains(problem), "{text}");
    }
    // Ends in less than thirty days.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut params = Files::params();
    params.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_hours(24 * 10 + 1);
    files.renew(&params);
    let (code, text) = check().await;
    assert_eq!(code, Some(0));
    assert!(text.contains("server.tls.cert expires in 10 days"), "{text}");
    drop(other_key);
}

#[tokio::test]
async fn plaintext_beyond_this_machine_has_to_be_allowed() {
    let sections = |more: &str| format!("[server]\nlisten = \"0.0.0.0:0\"\n{more}");
    let parse = |more: &str| {
        let text = config_text(&sections(more), [Backend::at(Vendor::Claret, "http://127.0.0.1:1")]);
        jobwatch::config::Config::parse(&text, []).map(|_| ())
    };
    let error = parse("").unwrap_err().to_string();
    assert!(error.starts_with("server.listen is 0.0.0.0:0 without server.tls"), "{error}");
    assert!(error.contains("server.allow_plaintext = true"), "{error}");
    parse("allow_plaintext = true").unwrap();
}

#[tokio::test]
async fn wrong_scheme_is_named_in_the_log_at_a_bounded_rate() {
    let files = Files::new();
    let backend = Backend::dead(Vendor::Claret).await;
    let text = |section: &str| config_text(section, [backend.clone()]);
    let tls = Program::run(program::command(&text(&files.section(""))), "info").await;
    let plain = Program::run(program::command(&text("[server]\nlisten = \"127.0.0.1:0\"")), "info").await;
    for _ in 0..20 {
        for (program, first) in [(&tls, b'P'), (&plain, 0x16)] {
            let mut stream = TcpStream::connect(program.address()).await.unwrap();
            stream.write_all(&[first; 30]).await.unwrap();
            let _ = guard(stream.read_to_end(&mut Vec::new())).await;
        }
    }
    for (program, reason) in [
        (&tls, "the client does not speak TLS, and server.tls is set"),
        (&plain, "the client speaks TLS, and server.tls is not set"),
    ] {
        let logged = async {
            while !program.log().contains(reason) {
                tokio::task::yield_now().await;
            }
        };
        guard(logged).await;
        assert!(program.log().matches(reason).count() <= 3, "{}", program.log());
    }
}

#[tokio::test]
async fn silence_after_the_tls_handshake_is_bounded() {
    let files = Files::new();
    let gateway = Gateway::start_with(&files.section(""), [Backend::dead(Vendor::Claret).await]).await;
    let mut stream = files.connect(TcpStream::connect(gateway.address).await.unwrap()).await;
    let _ = guard(stream.read_to_end(&mut Vec::new())).await;
}
